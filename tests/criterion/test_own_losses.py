"""Losses and costs of a user's own beside ours: columns, names, weights, and what the matching does with them."""

from typing import Any

import pytest
import torch
from conftest import Write, random_targets, small_model
from torch import Tensor

from queryinst.criterion.criterion import Criterion
from queryinst.criterion.matcher import NonFiniteError
from queryinst.criterion_config import CriterionConfig
from queryinst.errors import UserError
from queryinst.structures import Matches, StageOutput, Targets

SIZES = torch.tensor([[64, 64], [48, 64]])

LOSSES = """
    import torch

    class Classification:
        def __init__(self, scale=1.0):
            self.scale = scale

        def __call__(self, logits, wanted):
            return self.scale * (logits - wanted).abs().sum((1, 2, 3))

    class Term:
        def __init__(self, value):
            self.value = value

        def __call__(self, stages, masks, matches, targets, sizes):
            return self.value * torch.arange(1.0, len(stages) + 1) + 0 * stages[0].boxes.sum()

    class Seen:
        def __call__(self, *given):
            Seen.given = given
            return torch.stack([stage.logits.sum() for stage in given[0]])

    class Last:
        def __call__(self, logits, boxes, labels, wanted, sizes):
            Last.given = logits, boxes, labels, wanted, sizes
            made = torch.full((*logits.shape[:3], labels.shape[1]), 1e4)
            made[:, :, -labels.shape[1]:] = 0
            return made

    class Nothing:
        def __call__(self, logits, boxes, labels, wanted, sizes):
            return torch.full((*logits.shape[:3], labels.shape[1]), float("nan"))
"""


@pytest.fixture
def own(write: Write) -> None:
    write("my_losses.py", LOSSES)


def node(name: str, weight: float = 1.0, **args: Any) -> dict[str, Any]:
    return {"name": f"my_losses:{name}", "weight": weight, "args": args}


def outputs(**config: Any) -> tuple[Criterion, list[StageOutput], list[Tensor], Matches, Targets]:
    """A criterion, and what it is called with, from one small network."""
    torch.manual_seed(0)
    criterion, model, targets = Criterion(CriterionConfig(**config)), small_model(), random_targets([2, 1])
    output = model(torch.randint(256, (2, 3, 64, 64)).to(torch.uint8), SIZES)
    matches = criterion.match(output.stages, targets, SIZES)
    masks = model.predict_masks(output, dict(enumerate(matches.rows(targets.labels))))
    return criterion, output.stages, list(masks.values()), matches, targets


def table(**config: Any) -> Tensor:
    criterion, *given = outputs(**config)
    return criterion(*given, SIZES).detach()


@pytest.mark.usefixtures("own")
def test_further_terms_are_further_columns_in_their_order():
    plain = table()
    terms = {
        "second": node("Term", 2.0, value=3.0),
        "first": node("Term", value=10.0),
        "none": node("Term", 0, value=1.0),
    }
    made = table(terms=terms)
    assert Criterion(CriterionConfig(terms=terms)).terms == (
        *("class", "l1", "giou", "mask"),
        *("second", "first", "none", "association"),
    )
    assert torch.equal(made[:, :4], plain)  # to the last bit
    stage = torch.tensor([1.0, 2.0])
    assert torch.equal(made[:, 4:], torch.stack([6 * stage, 10 * stage, 0 * stage], 1) / 3)  # three pairs


@pytest.mark.usefixtures("own")
def test_the_association_loss_comes_last():
    criterion, *given = outputs(terms={"mine": node("Term", value=3.0)})
    stages, masks, matches, targets = given
    targets = Targets(**{**vars(targets), "tracks": torch.tensor([0, 1, 0])})
    embeddings = [torch.randn(3, 4) for _ in stages]
    made = criterion(stages, masks, matches, targets, SIZES, embeddings)
    assert made.shape == (2, 6)
    assert torch.equal(made[:, :5], criterion(*given, SIZES))
    assert made[:, 4].tolist() == [1.0, 2.0]


@pytest.mark.usefixtures("own")
def test_a_term_gets_what_the_contract_says():
    from my_losses import Seen

    criterion, stages, masks, matches, targets = outputs(terms={"mine": node("Seen")})
    criterion(stages, masks, matches, targets, SIZES)
    told, drawn, *rest = Seen.given
    assert [torch.equal(one.logits, other.logits) for one, other in zip(told, stages, strict=True)] == [True, True]
    assert all(one.boxes is other.boxes for one, other in zip(told, stages, strict=True))
    assert [one.shape for one in drawn] == [(3, 28, 28), (3, 28, 28)]
    assert rest == [matches, targets, SIZES]


@pytest.mark.usefixtures("own")
def test_gradients_of_a_term_reach_the_network_with_its_weight():
    slopes = []
    for weight in (1.0, 3.0):
        criterion, *given = outputs(terms={"mine": node("Seen", weight)})
        loss = criterion(*given, SIZES)[:, 4].sum()
        slopes.append(torch.autograd.grad(loss, given[0][0].logits)[0])
    torch.testing.assert_close(slopes[1], 3 * slopes[0])
    torch.testing.assert_close(slopes[0], torch.full_like(slopes[0], 1 / 3))


@pytest.mark.usefixtures("own")
def test_a_classification_loss_takes_the_place_of_ours_alone():
    config = {"class_weight": 4.0}
    part = CriterionConfig().classification
    part.name, part.args = "my_losses:Classification", {"scale": 0.5}
    made, plain = table(classification=part, **config), table(**config)
    assert torch.equal(made[:, 1:], plain[:, 1:])
    _criterion, stages, _masks, matches, targets = outputs()
    wanted = torch.zeros_like(stages[1].logits)
    wanted[matches.image, matches.query[1], targets.labels[matches.target[1]]] = 1
    torch.testing.assert_close(made[1, 0], 4.0 * 0.5 * (stages[1].logits - wanted).abs().sum().detach() / 3)


@pytest.mark.usefixtures("own")
def test_a_cost_changes_the_matching_as_far_as_its_weight_goes():
    _, _, _, plain, _ = outputs()
    _, _, _, none, _ = outputs(costs={"mine": node("Last", 0.0)})
    _, _, _, made, _ = outputs(costs={"mine": node("Last")})
    assert torch.equal(none.query, plain.query)
    first = made.query[:, made.image == 0]
    assert first.sort().values.tolist() == [[4, 5], [4, 5]]  # of six queries the last two
    assert plain.query[:, plain.image == 0].sort().values.tolist() != [[4, 5], [4, 5]]


@pytest.mark.usefixtures("own")
def test_a_cost_gets_what_the_contract_says():
    from my_losses import Last

    _, stages, _, _, targets = outputs(costs={"mine": node("Last")})
    logits, boxes, labels, wanted, sizes = Last.given
    assert torch.equal(logits, torch.stack([one.logits for one in stages]))
    assert torch.equal(boxes, torch.stack([one.boxes for one in stages]))
    assert labels.tolist() == [targets.labels[:2].tolist(), [int(targets.labels[2]), 0]]
    assert torch.equal(wanted[0], targets.boxes[:2])
    assert torch.equal(wanted[1, 0], targets.boxes[2])
    assert sizes is SIZES
    assert not logits.requires_grad or not torch.is_grad_enabled()


@pytest.mark.usefixtures("own")
def test_a_cost_that_is_not_finite_is_said():
    with pytest.raises(NonFiniteError, match=r"^the matching costs of finite outputs are NaN or infinite$"):
        outputs(costs={"mine": node("Nothing")})


@pytest.mark.usefixtures("own")
def test_a_term_that_is_not_finite_is_named():
    criterion, *given = outputs(terms={"mine": node("Term", value=float("inf"))})
    stages, masks, matches, targets = given
    losses = criterion(*given, SIZES)
    with pytest.raises(NonFiniteError, match=r"^the loss 'mine' of stage 1 is inf$"):
        criterion.require_finite(losses, stages, masks, [matches.image] * len(masks), targets)


@pytest.mark.parametrize("name", ["class", "l1", "giou", "mask", "association"])
def test_names_of_our_losses_are_taken(name: str):
    with pytest.raises(UserError) as caught:
        Criterion(CriterionConfig(terms={name: {"name": "my_losses:Term"}}))
    assert str(caught.value) == f"criterion.terms.{name}: QueryInst has a loss of that name; choose another"


@pytest.mark.usefixtures("own")
def test_costs_may_be_called_as_they_like():
    assert list(Criterion(CriterionConfig(costs={"class": node("Last")})).match.further) == ["class"]
