"""`torch.compile` for the parts of the network that gain by it."""

from queryinst.models.queryinst import QueryInst


def compile_parts(model: QueryInst) -> None:
    """Compile backbone, FPN and the heads of all stages in place; names and weights stay as they are.

    Between them, RoIAlign, matching and losses are as before: they are few kernels, or indices that change every time.
    A part is compiled when it is first called, once for all stages and once for all sizes after the second.
    """
    for part in (model.backbone, model.neck):
        part.compile()
    for stage in model.stages:
        stage.box.compile()
        stage.mask.compile(dynamic=True)  # as many rows as there are objects
