"""The association loss against one that is spelled out, what it does not depend on, and its edges."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import random_batch, small_model
from torch import Tensor

from queryinst.criterion.association import association
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Batch
from queryinst.video_config import AssociationConfig

KINDS = ("contrastive_focal", "cross_entropy")


def slowly(embeddings: Tensor, image: Tensor, tracks: Tensor, kind: str) -> list[float]:
    """Query by query, with a softmax over a list."""
    sums = []
    for of_stage, track in zip(embeddings.tolist(), tracks.tolist(), strict=True):
        total = 0.0
        for row, own in enumerate(image.tolist()):
            partner = own + 1 if own % 2 == 0 else own - 1
            references = [j for j, other in enumerate(image.tolist()) if other == partner]
            logits = [0.0] + [sum(a * b for a, b in zip(of_stage[row], of_stage[j], strict=True)) for j in references]
            target = next((k for k, j in enumerate(references, 1) if track[j] == track[row]), 0)
            top = max(logits)
            log_p = logits[target] - top - math.log(sum(math.exp(logit - top) for logit in logits))
            total -= log_p * (0.25 * (1 - math.exp(log_p)) ** 2 if kind == KINDS[0] else 1)
        sums.append(total)
    return sums


def made(counts: list[int], stages: int = 2, width: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, image and tracks of matched queries: a track number is used again in other pairs, once an image."""
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    tracks = [torch.cat([torch.randperm(6)[:count] for count in counts]) for _ in range(stages)]
    return torch.randn(stages, len(image), width, dtype=torch.float64), image, torch.stack(tracks)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", [[3, 4, 2, 5], [1, 1], [6, 0, 0, 6], [0, 3, 2, 2]])
def test_as_spelled_out(kind: str, counts: list[int]):
    embeddings, image, tracks = made(counts)
    found = association(embeddings, image, tracks, kind)
    torch.testing.assert_close(found, torch.tensor(slowly(embeddings, image, tracks, kind)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_order_names_and_sides_do_not_matter(kind: str):
    """Rows in another order, tracks under other numbers, frames of a pair exchanged, pairs in another order."""
    embeddings, image, tracks = made([3, 4, 2, 5])
    expected = association(embeddings, image, tracks, kind)
    order = torch.randperm(len(image))
    torch.testing.assert_close(association(embeddings[:, order], image[order], tracks[:, order], kind), expected)
    torch.testing.assert_close(association(embeddings, image, 1000 - 7 * tracks, kind), expected)
    torch.testing.assert_close(association(embeddings, image ^ 1, tracks, kind), expected)
    torch.testing.assert_close(association(embeddings, image ^ 2, tracks, kind), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", [[0, 0], [3, 0], [0, 2, 0, 0]], ids=["nothing", "one side", "one of two pairs"])
def test_without_a_partner_everything_is_new_and_there_is_nothing_to_learn(kind: str, counts: list[int]):
    embeddings, image, tracks = made(counts)
    embeddings.requires_grad_()
    loss = association(embeddings, image, tracks, kind)
    assert loss.tolist() == [0, 0]
    loss.sum().backward()
    assert embeddings.grad is not None
    assert not embeddings.grad.any(), "zero, not NaN"


@pytest.mark.parametrize("kind", KINDS)
def test_no_common_object_pushes_apart(kind: str):
    embeddings = torch.ones(1, 2, 4, requires_grad=True)
    association(embeddings, torch.tensor([0, 1]), torch.tensor([[1, 2]]), kind).sum().backward()
    assert embeddings.grad is not None
    assert (embeddings.grad > 0).all()
    common = torch.full((1, 2, 4), 0.1, requires_grad=True)
    association(common, torch.tensor([0, 1]), torch.tensor([[1, 1]]), kind).sum().backward()
    assert common.grad is not None
    assert (common.grad < 0).all()


def test_large_dot_products_stay_finite():
    embeddings = (100 * torch.randn(1, 6, 32)).requires_grad_()
    image, tracks = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([[1, 2, 3, 3, 4, 1]])
    for kind in KINDS:
        loss = association(embeddings, image, tracks, kind)
        loss.sum().backward()
        torch.testing.assert_close(loss, torch.tensor(slowly(embeddings, image, tracks, kind)))
        assert embeddings.grad is not None
        assert embeddings.grad.isfinite().all()


def video_model(head: str = "query") -> QueryInst:
    return small_model(association=AssociationConfig(head, width=8))


def pairs(counts: list[int], tracks: list[int]) -> Batch:
    batch = random_batch(counts)
    return replace(batch, targets=replace(batch.targets, tracks=torch.tensor(tracks, dtype=torch.int64)))


def losses_of(model: QueryInst, batch: Batch, config: CriterionConfig | None = None) -> Tensor:
    criterion = Criterion(config or CriterionConfig())
    output = model(batch.images, batch.sizes)
    matches = criterion.match(output.stages, batch.targets, batch.sizes)
    rows = dict(enumerate(matches.rows(batch.targets.labels)))
    masks, embeddings = model.predict_masks(output, rows), model.embed(output, rows)
    return criterion(
        output.stages, list(masks.values()), matches, batch.targets, batch.sizes, list(embeddings.values())
    )


CASES = {
    "plain": ([2, 3], [0, 1, 1, 0, 2]),
    "one empty": ([0, 3], [0, 1, 2]),
    "all empty": ([0, 0], []),
    "nothing in common": ([2, 2], [0, 1, 2, 3]),
    "more than queries": ([9, 9], [*range(9), *range(9)]),
}


@pytest.mark.parametrize("head", ["query", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_a_fifth_column_and_a_gradient_for_every_parameter(case: str, head: str):
    model = video_model(head)
    losses = losses_of(model, pairs(*CASES[case]))
    assert losses.shape == (2, 5)
    assert losses.isfinite().all()
    losses.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_the_weight_the_divisor_and_the_other_terms():
    model, batch = video_model().eval(), pairs(*CASES["plain"])
    losses = losses_of(model, batch)
    heavy = losses_of(model, batch, CriterionConfig(association_weight=3.0))
    torch.testing.assert_close(heavy[:, 4], 3 * losses[:, 4])
    torch.testing.assert_close(heavy[:, :4], losses[:, :4])
    twice = pairs([2, 3, 2, 3], [0, 1, 1, 0, 2] * 2)
    first = random_batch([2, 3])
    again = torch.cat([first.images] * 2)
    targets = first.targets
    doubled = replace(
        twice.targets,
        **{
            name: torch.cat([getattr(targets, name)] * 2) for name in ("boxes", "labels", "masks", "mask_boxes")
        },  # the same pair twice: twice the sums, twice the divisor
    )
    same = replace(twice, images=again, sizes=torch.cat([first.sizes] * 2), targets=doubled)
    torch.testing.assert_close(losses_of(model, same), losses, rtol=1e-4, atol=1e-5)


def test_float32_under_bfloat16():
    model, batch = video_model(), pairs(*CASES["plain"])
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(model, batch)
        wide = association(torch.full((1, 2, 1), 1 + 2**-12), torch.tensor([0, 1]), torch.tensor([[1, 2]]), KINDS[1])
    assert losses.dtype == torch.float32
    losses.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert wide.item() > association(torch.ones(1, 2, 1), torch.tensor([0, 1]), torch.tensor([[1, 2]]), KINDS[1]).item()


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_learn_to_find_each_other(kind: str):
    """Two views of each object, in a batch of pairs: after some steps every query finds its own."""
    torch.manual_seed(0)
    features = torch.randn(6, 16)
    views = torch.cat([features[:4], features[:3], features[3:6], features[2:6]]) + 0.1 * torch.randn(14, 16)
    tracks = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 2, 3, 4, 5]])
    image = torch.tensor([0] * 4 + [1] * 3 + [2] * 3 + [3] * 4)
    layers = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16))
    adamw = torch.optim.AdamW(layers.parameters(), lr=1e-2)
    for _ in range(100):
        adamw.zero_grad()
        association(layers(views)[None], image, tracks, kind).sum().backward()
        adamw.step()
    embeddings = layers(views)
    alike = (embeddings @ embeddings.T).masked_fill(image[:, None] != (image ^ 1), -torch.inf)
    best, where = alike.max(1)
    same = (image[:, None] == (image ^ 1)) & (tracks[0, :, None] == tracks[0])
    assert torch.equal(best > 0, same.any(1)), "new is told from known"
    assert (tracks[0, where] == tracks[0])[best > 0].all()
