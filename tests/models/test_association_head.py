"""The association head: shapes, what it sees, and that it costs nothing where it is not asked for."""

from typing import Any

import pytest
import torch
from conftest import SMALL, random_batch, small_model

from queryinst.config import ModelConfig, PostprocessConfig
from queryinst.models.association_head import AssociationHead
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Rows
from queryinst.video_config import AssociationConfig

HEADS = ("query", "plain")


def config(head: str) -> dict[str, Any]:
    return {"association": AssociationConfig(head, width=12)}


@pytest.mark.parametrize("head", HEADS)
def test_shapes_gradients_and_the_sign_of_an_embedding(head: str):
    made = AssociationHead(ModelConfig(**SMALL, **config(head)))
    queries, regions = torch.randn(40, 16), torch.randn(40, 16, 7, 7)
    embeddings = made(queries, regions)
    assert embeddings.shape == (40, 12)
    assert (embeddings < 0).any(), "no ReLU at the end"
    assert made(queries[:0], regions[:0]).shape == (0, 12)
    made(queries[:0], regions[:0]).sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in made.parameters())
    embeddings.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in made.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_a_fresh_head_does_not_shout(head: str):
    """Features of a trained pyramid are large; the first dot products must not be, or nothing else learns for long."""
    made = AssociationHead(ModelConfig(association=AssociationConfig(head, width=64), width=64, dynamic_width=32))
    embeddings = made(torch.randn(50, 64), 5 * torch.randn(50, 64, 7, 7).relu())
    assert (embeddings @ embeddings.T).abs().max() < 30


def test_the_query_matters_to_the_driven_head_only():
    queries, regions = torch.randn(2, 5, 16), torch.randn(5, 16, 7, 7)
    for head, same in (("query", False), ("plain", True)):
        made = AssociationHead(ModelConfig(**SMALL, **config(head)))
        assert torch.equal(made(queries[0], regions), made(queries[1], regions)) == same
        assert not torch.allclose(made(queries[0], regions), made(queries[0], regions.flip(0)))


def test_image_models_are_as_they_were():
    """The names in checkpoints, but for the new head."""
    plain = small_model().state_dict()
    for head in HEADS:
        video = small_model(**config(head)).state_dict()
        extra = [name for name in video if name not in plain]
        assert [name for name in plain if name not in video] == []
        assert {name.split(".")[0] + "." + name.split(".")[2] for name in extra} == {"stages.association"}
    assert small_model().embed(None, {0: None}) == {}  # type: ignore[arg-type, dict-item]


@pytest.fixture
def looked() -> tuple[QueryInst, Any, Any]:
    model, batch = small_model(**config("query")).eval(), random_batch([2, 1])
    with torch.no_grad():
        return model, batch, model(batch.images, batch.sizes)


def test_rows_of_every_stage_in_their_order(looked: tuple[QueryInst, Any, Any]):
    """Each row is embedded by its own stage's head, at its own box, also when asked for twice."""
    model, _, output = looked
    rows = {
        0: Rows(torch.tensor([1, 0, 1]), torch.tensor([2, 3, 2]), torch.tensor([0, 1, 2])),
        1: Rows(torch.tensor([0, 1]), torch.tensor([5, 4]), torch.tensor([0, 0])),
    }
    found = model.embed(output, rows)
    for index, row in rows.items():
        head = model.stages[index].association
        assert head
        stage = output.stages[index]
        for place, (image, query) in enumerate(zip(row.image, row.query, strict=True)):
            region = output.pyramid.align(stage.boxes[image, query][None], image[None], 7)
            torch.testing.assert_close(found[index][place], head(stage.mask_queries[image, query][None], region)[0])
    assert torch.equal(found[0][0], found[0][2])


def test_only_matched_rows_get_a_gradient():
    model, batch = small_model(**config("query")), random_batch([1, 1])
    output = model(batch.images, batch.sizes)
    queries = [stage.mask_queries for stage in output.stages]
    for query in queries:
        query.retain_grad()
    rows = Rows(torch.tensor([0, 1]), torch.tensor([3, 5]), torch.tensor([0, 0]))
    embeddings = model.embed(output, {1: rows})[1]
    assert embeddings.shape == (2, 12)
    embeddings.sum().backward()
    gradient = queries[1].grad
    assert gradient is not None
    assert gradient.abs().sum(-1).nonzero().tolist() == [[0, 3], [1, 5]]


def test_detections_bring_the_embedding_of_their_query(looked: tuple[QueryInst, Any, Any]):
    model, batch, output = looked
    for stage in (0, -1):
        found = detect(model, output, batch.sizes, batch.sizes, PostprocessConfig(max_detections=9, min_side=1), stage)
        for image, detections in enumerate(found):
            assert detections.queries is not None
            assert detections.embeddings is not None
            assert detections.embeddings.shape == (len(detections.scores), 12)
            rows = Rows(torch.full_like(detections.queries, image), detections.queries, detections.labels)
            expected = model.embed(output, {stage % 2: rows})[stage % 2]
            torch.testing.assert_close(detections.embeddings, expected)
    assert detect(small_model().eval(), output, batch.sizes, batch.sizes, PostprocessConfig())[0].embeddings is None
