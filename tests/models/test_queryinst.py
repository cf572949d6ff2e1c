"""Properties of the whole network."""

from dataclasses import replace

import pytest
import torch
from conftest import random_batch, small_model

from queryinst.config import BackboneConfig, ModelConfig, PostprocessConfig
from queryinst.errors import UserError
from queryinst.models.cost import parameters
from queryinst.models.groups import Group
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import MEAN, STD, QueryInst
from queryinst.ops import boxes as box_ops
from queryinst.structures import Rows


def test_normalised_padding_is_zero():
    model = small_model()
    images = torch.full((1, 3, 32, 64), 200, dtype=torch.uint8)
    x = model.normalise(images, torch.tensor([[20, 40]]))
    assert not x[:, :, 20:].any()
    assert not x[:, :, :, 40:].any()
    torch.testing.assert_close(x[0, :, 0, 0], (200 - torch.tensor(MEAN)) / torch.tensor(STD))


def test_what_lies_in_the_padding_does_not_matter():
    model = small_model().eval()
    sizes = torch.tensor([[40, 50]])
    first = torch.randint(256, (1, 3, 64, 64)).to(torch.uint8)
    second = first.clone()
    second[:, :, 40:], second[:, :, :, 50:] = 7, 99
    a, b = model(first, sizes), model(second, sizes)
    assert torch.equal(a.stages[-1].boxes, b.stages[-1].boxes)


def test_maps_have_their_channels_last_in_training(monkeypatch: pytest.MonkeyPatch):
    """Of a backbone of ours and without DDP; a user's own gets images in the usual order, to take a view of."""
    model, seen = small_model(), []
    model.backbone.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    batch = random_batch([1])
    for training in (True, False):
        output = model.train(training)(batch.images, batch.sizes)
        assert seen.pop().is_contiguous(memory_format=torch.channels_last) is training
        assert all(x.is_contiguous(memory_format=torch.channels_last) is training for x in output.pyramid.maps[:3])
    with monkeypatch.context() as patch:
        patch.setattr("torch.distributed.is_initialized", lambda: True)
        assert model.train().normalise(batch.images, batch.sizes).is_contiguous()
    model.backbone = torch.nn.Sequential(model.backbone)
    model.train()(batch.images, batch.sizes)
    assert seen.pop().is_contiguous()


def test_a_batch_is_its_images_one_by_one():
    model = small_model().eval()
    batch = random_batch([1, 1, 1])
    together = model(batch.images, batch.sizes)
    for index in range(3):
        alone = model(batch.images[index : index + 1], batch.sizes[index : index + 1])
        for ours, theirs in zip(together.stages, alone.stages, strict=True):
            torch.testing.assert_close(ours.logits[index], theirs.logits[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours.boxes[index], theirs.boxes[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 48), (33, 32), (32, 40)])
def test_images_must_fit_the_strides(height: int, width: int):
    images, size = torch.zeros(1, 3, height, width, dtype=torch.uint8), torch.tensor([[height, width]])
    with pytest.raises(ValueError, match=f"^images must be padded to multiples of 32, got {height}x{width}$"):
        small_model()(images, size)


def test_the_network_stays_where_it_is_put():
    """On a device that has shapes and no numbers: one that mixes it with another would fail."""
    model = small_model().to("meta").eval()
    images = torch.zeros(2, 3, 64, 96, dtype=torch.uint8, device="meta")
    output = model(images, torch.zeros(2, 2, dtype=torch.int64, device="meta"))
    for stage in output.stages:
        assert [stage.logits.shape, stage.boxes.shape] == [(2, 6, 3), (2, 6, 4)]
        assert stage.boxes.device.type == "meta"


def test_what_is_known_without_learning_is_in_no_checkpoint():
    model = small_model()
    assert [name for name, _ in model.named_buffers() if name in ("mean", "std")] == ["mean", "std"]
    assert not {"mean", "std"} & set(model.state_dict())


def test_settings_of_the_proposals_arrive():
    assert small_model(proposal_init="image").queries.boxes.unique(dim=0).tolist() == [[0.5, 0.5, 1, 1]]
    assert len(small_model(proposal_init="grid").queries.boxes.unique(dim=0)) == 6
    learn = [small_model(detach_proposals=detach).queries.boxes.requires_grad for detach in (False, True)]
    assert learn == [True, False]


def test_regions_are_read_as_the_setting_says():
    pyramids = [small_model(aligned=aligned).eval().pyramid(torch.zeros(1, 3, 32, 32)) for aligned in (True, False)]
    assert [pyramid.aligned for pyramid in pyramids] == [True, False]


def test_stages_that_share_have_one_box_head_and_learn_in_it_together():
    alone, shared = small_model(num_stages=3), small_model(num_stages=3, share_stages=True)
    head = shared.stages[0].box
    assert all(stage.box is head for stage in shared.stages)
    assert len({id(stage.mask) for stage in shared.stages}) == 3
    of_a_head = sum(parameter.numel() for parameter in head.parameters())
    assert parameters(alone) - parameters(shared) == 2 * of_a_head
    batch = random_batch([1])
    gradients = []
    for stage in range(3):
        output = shared(batch.images, batch.sizes).stages[stage]
        (gradient,) = torch.autograd.grad(output.boxes.square().sum(), head.reg.weight)
        gradients.append(gradient)
    assert all(gradient.any() for gradient in gradients)


def test_weights_of_stages_that_share_are_those_of_stages_that_do_not():
    """A checkpoint has every name, so that a network whose stages are its own can go on from it."""
    shared, alone = small_model(share_stages=True).eval(), small_model().eval()
    alone.load_state_dict(shared.state_dict())
    batch = random_batch([1])
    for ours, theirs in zip(*(model(batch.images, batch.sizes).stages for model in (shared, alone)), strict=True):
        assert torch.equal(ours.boxes, theirs.boxes)
        assert torch.equal(ours.logits, theirs.logits)


def test_boxes_are_detached_between_stages_and_queries_are_not():
    model = small_model()
    batch = random_batch([1])
    output = model(batch.images, batch.sizes)
    first = model.stages[0].box
    output.stages[1].boxes.sum().backward()
    assert first.reg.weight.grad is None  # the first stage's box is only a place to look
    assert first.ffn.fc1.weight.grad is not None
    assert first.ffn.fc1.weight.grad.any()  # its query goes on
    assert model.queries.boxes.grad is None


@pytest.mark.parametrize("groups", [[], [Group("recollection", None)]], ids=["alone", "beside a group"])
def test_looking_forward_twice_teaches_the_stage_before_and_no_other(groups: list[Group]):
    """DINO, figure 6: a box has the gradient of its own stage's deltas and of those before them."""
    batch, last, made = random_batch([1]), [], []
    for twice in (False, True):
        torch.manual_seed(0)
        model = small_model(num_stages=3, look_forward_twice=twice)
        last.append(model(batch.images, batch.sizes, groups).stages)
        last[-1][2].boxes.sum().backward()
        gradients = [*(stage.box.reg.weight.grad for stage in model.stages), model.queries.boxes.grad]
        made.append([gradient is not None and bool(gradient.any()) for gradient in gradients])
    assert made == [[False, False, True, False], [False, True, True, False]]
    for once, twice in zip(*last, strict=True):
        assert torch.equal(once.boxes, twice.boxes)
        assert torch.equal(once.logits, twice.logits)


def test_looking_forward_twice_leaves_the_boxes_of_the_second_stage_to_the_second_box():
    """The gradient of stage 2's box by stage 1's deltas is that of one refinement after the other."""
    model, batch = small_model(look_forward_twice=True), random_batch([1])
    first, second = model(batch.images, batch.sizes).stages
    (found,) = torch.autograd.grad(second.boxes.sum(), first.deltas, retain_graph=True)
    boxes, _ = model.queries(batch.sizes)
    deltas = first.deltas.detach().requires_grad_()
    again = box_ops.refine(box_ops.refine(boxes.detach(), deltas), second.deltas.detach())
    (expected,) = torch.autograd.grad(again.sum(), deltas)
    torch.testing.assert_close(found, expected)


def test_a_box_head_without_deltas_cannot_look_forward_twice():
    model, batch = small_model(look_forward_twice=True), random_batch([1])
    model.stages[0].box.register_forward_hook(lambda head, given, output: replace(output, deltas=None))
    with pytest.raises(UserError, match="model.look_forward_twice needs a box head that tells"):
        model(batch.images, batch.sizes)
    model.eval()(batch.images, batch.sizes)


def test_the_proposal_boxes_learn_from_the_first_stage():
    model = small_model()
    batch = random_batch([1])
    model(batch.images, batch.sizes).stages[0].boxes.sum().backward()
    assert model.queries.boxes.grad is not None
    assert model.queries.boxes.grad.any(dim=1).all()


def test_a_query_asked_for_twice_is_drawn_alike():
    model = small_model().eval()
    batch = random_batch([1, 1])
    rows = Rows(torch.tensor([1, 0, 1, 1]), torch.tensor([2, 3, 2, 2]), torch.tensor([0, 1, 2, 0]))
    masks = model.predict_masks(model(batch.images, batch.sizes), {0: rows, 1: rows})
    assert masks[0].shape == (4, 28, 28)
    torch.testing.assert_close(masks[1][0], masks[1][3])
    assert not torch.allclose(masks[1][0], masks[1][2])
    assert not torch.allclose(masks[0][0], masks[1][0])


@pytest.mark.parametrize(
    ("name", "proposals", "count"),
    [("resnet50", 100, 172_688_808), ("resnet50", 300, 172_740_808), ("resnet101", 300, 191_732_936)],
)
def test_parameter_counts_of_the_published_models(name: str, proposals: int, count: int):
    with torch.device("meta"):
        model = QueryInst(ModelConfig(num_proposals=proposals), BackboneConfig(name=name), num_classes=80)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_fewer_stages_and_fewer_proposals():
    """Stages that are left out change nothing before them; proposals that go on are the best of the first stage."""
    model, batch = small_model().eval(), random_batch([1, 1])
    whole = model(batch.images, batch.sizes)
    pyramid = model.pyramid(model.normalise(batch.images, batch.sizes))
    one = model.query(pyramid, batch.sizes, stages=1)
    assert len(one.stages) == 1
    assert torch.equal(one.stages[0].boxes, whole.stages[0].boxes)
    for every in (None, 6, 60):
        assert torch.equal(model.query(pyramid, batch.sizes, proposals=every).stages[1].boxes, whole.stages[1].boxes)
    some = model.query(pyramid, batch.sizes, proposals=2)
    assert torch.equal(some.stages[0].logits, whole.stages[0].logits)
    best = whole.stages[0].logits.amax(-1).topk(2, dim=1).indices
    assert [stage.chosen for stage in whole.stages] == [None, None]
    assert some.stages[0].chosen is None
    assert torch.equal(some.stages[1].chosen, best)
    every = PostprocessConfig(max_detections=6, clip_boxes=False)
    for image, found in enumerate(detect(model, some, batch.sizes, batch.sizes, every)):
        assert set(found.queries.tolist()) == set(best[image].tolist()), "the number that it has among all"
        rows = [best[image].tolist().index(query) for query in found.queries.tolist()]
        torch.testing.assert_close(found.boxes, some.stages[1].boxes[image, rows])
    for image in range(2):
        stage = model.stages[1].box
        boxes, queries = (x[image : image + 1, best[image]] for x in (one.stages[0].boxes, one.stages[0].queries))
        regions = pyramid.align(boxes[0], torch.full((2,), image), model.box_resolution)
        alone = stage(queries, regions, boxes)
        torch.testing.assert_close(some.stages[1].logits[image], alone.logits[0])
        torch.testing.assert_close(some.stages[1].boxes[image], alone.boxes[0])
