"""What a user should know of a data set that can be used, before it is: in a line each, of training and evaluation."""

from queryinst.data.coco import CocoFile
from queryinst.data.repair import CROWD
from queryinst.data.youtube_vis import VideoFile

MANY_CROWDS = 0.1  # of all annotations; COCO has 0.012


def notes(source: CocoFile, proposals: int, judged: int | None = None) -> list[str]:
    """What is not learned or not counted of an annotation file.

    Args:
        source: the file.
        proposals: of the model, which finds as many objects in an image at most.
        judged: detections of a class in an image that are counted, where the file is evaluated on.
    """
    if isinstance(source, VideoFile):
        return []
    found, of = source.index.summary(), source.path
    said = []
    if found.crowds > MANY_CROWDS * found.annotations and source.crowd == CROWD[0]:
        said.append(
            f"{found.crowds} of the {found.annotations} annotations of {of} are crowd regions (iscrowd: 1), neither "
            "learned nor counted; if a tool marked objects so, crowd=objects (in training data.crowd=objects)"
        )
    if found.unmasked:
        objects = found.annotations - found.crowds
        said.append(
            f"{found.unmasked} of the {objects} objects of {of} have a box and no mask: their boxes count, their masks "
            f"do not{' - nothing here teaches or judges masks' if found.unmasked == objects else ''}"
        )
    if found.most > proposals:
        said.append(
            f"an image of {of} has {found.most} objects, and the model finds {proposals} at most (model.num_proposals)"
        )
    if judged and found.most_of_class > judged:
        said.append(
            f"an image of {of} has {found.most_of_class} objects of a class, of which average precision counts "
            f"{judged} detections: evaluate max_detections={found.most_of_class}"
        )
    return said
