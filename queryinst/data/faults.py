"""The kinds of fault that the doctor knows, as one table, and where it collects what it finds."""

from collections.abc import Iterator
from typing import NamedTuple

FIRST = 5  # examples kept of each kind


class Rule(NamedTuple):
    """A kind of fault. An error stops training or falsifies its result; with a warning it goes on."""

    severity: str
    meaning: str
    advice: str


def _rules(severity: str, *rows: tuple[str, str, str]) -> dict[str, Rule]:
    return {code: Rule(severity, meaning, advice) for code, meaning, advice in rows}


RULES = {
    # The annotation file by itself: what queryinst.data.validation finds, and training stops at.
    **_rules(
        "error",
        ("not-coco", "not a COCO annotation file", "give a JSON file with the lists images, annotations, categories"),
        (
            "other-format",
            "the file is in another tool's format",
            "`python -m queryinst.dataset import` makes COCO of it",
        ),
        ("not-json", "the file is no JSON", "it may be cut short: copy or export it again"),
        ("not-utf8", "the file is text in another encoding than UTF-8", "save it as UTF-8: iconv -f GBK -t UTF-8 FILE"),
        ("missing-field", "an entry lacks a field that COCO asks for", "export with all fields, or remove the entry"),
        ("no-categories", "there are no categories", "list the classes in `categories`"),
        ("no-images", "there are no images", "list the images in `images`"),
        ("id-kind", "an id is not a whole number", "number the entries, and write these numbers where they are named"),
        ("duplicate-images-id", "two images have one id", "give each image its own id; do not just join two files"),
        ("duplicate-categories-id", "two categories have one id", "give each category its own id"),
        ("duplicate-category-name", "two categories have one name", "join them, or give each its own name"),
        ("unprintable-category-name", "a category name has control characters", "write the name as plain text"),
        ("file-name", "an image has no file name", "write the file's name, from the image folder, into file_name"),
        ("size-field", "width or height is no positive whole number", "write the size of the stored pixels"),
        ("dangling-image", "an annotation names an unlisted image", "add the image, or remove the annotation"),
        ("unknown-category", "an annotation names an unlisted category", "add the category, or correct the annotation"),
        ("box-values", "a box is not four finite numbers", "write x, y, width, height in pixels"),
        ("box-negative", "a box has a negative width or height", "write x, y of the top left corner, width, height"),
        ("iscrowd-value", "iscrowd is neither 0 nor 1", "1 marks a region of uncounted objects; 0 is an object"),
        ("area-value", "area is no number", "write the mask's pixels, or leave `area` out"),
        ("area-all-zero", "every area is 0, so nothing is learned", "write the masks' pixels, or leave `area` out"),
        (
            "coordinates-fractions",
            "coordinates are fractions of the image, 0 to 1",
            "write pixels: multiply x and width by the image's width, y and height by its height",
        ),
        ("mask-kind", "a mask is neither polygons nor RLE", "write COCO's polygons or RLE, not a file's name"),
        (
            "polygon-brackets",
            "the brackets or kinds of a mask are not COCO's",
            "write polygons as [[x, y, x, y, ...], ...] and an RLE without brackets around it; the masks may be good",
        ),
        ("polygon-points", "a polygon has fewer than three points, or half a point", "redraw this mask"),
        ("polygon-values", "a polygon has a coordinate that is no finite number", "correct the coordinate"),
        ("rle-size", "an RLE is of another size than its image", "size is [height, width]; encode at the image's size"),
        ("rle-counts", "an RLE is damaged or does not cover its image", "encode it again with pycocotools"),
        ("not-understood", "an annotation holds values of an unknown kind", "compare it with COCO's format"),
    ),
    # Files that can be read and teach the wrong thing, or nothing.
    **_rules(
        "error",
        ("box-xyxy", "boxes look like x1, y1, x2, y2", "write x, y, width, height"),
        ("box-outside", "a box lies outside its image", "was the image resized or cropped after it was annotated?"),
        ("mask-far-from-box", "box and mask are in different places", "compute the box from the mask"),
        ("labels-shifted", "category ids look counted from 0 here and from 1 there", "add or subtract 1 throughout"),
        (
            "crowd-many",
            "many annotations are crowd regions (iscrowd: 1), which are neither learned nor counted",
            "some tools mark masks drawn with a brush so: if these are objects, add data.crowd=objects",
        ),
        ("no-objects", "there is no object to learn or find", "crowd regions and boxes below a pixel do not count"),
        ("duplicate-file", "two images name one file", "put all annotations of a picture under one image"),
        ("categories-shifted", "the ids of the same categories are shifted by one", "use one list in both files"),
        ("categories-differ", "the two files have different categories", "use one list of categories in both files"),
        ("shared-image", "an image is in both train and val", "remove it from one; val scores would be too good"),
    ),
    **_rules(
        "warning",
        ("duplicate-annotation-id", "two annotations have one id", "number them; other tools drop all but one"),
        ("annotation-id-0", "an annotation has the id 0", "count from 1; pycocotools takes 0 for no match"),
        ("labels-shifted-between", "objects of the two files are one category id apart", "does one count from 0?"),
        ("duplicate-object", "an object is annotated twice", "remove one of the two"),
        ("box-overhangs", "a box leaves its image by more than 2 pixels", "clip it; was the image cropped?"),
        ("box-degenerate", "a box is less than a pixel wide or high", "it is not learned: remove or redraw it"),
        ("mask-flat", "a mask has no extent", "it is a line or a point: redraw it"),
        ("polygon-outside", "a polygon leaves its image by more than 2 pixels", "clip it; was the image cropped?"),
        ("area-not-positive", "an area is not above 0", "it is not learned: write the mask's pixels"),
        ("area-above-box", "an area is larger than its box", "write the mask's pixels; AP by size depends on it"),
        ("number-as-text", "a number is text, or an id has a decimal point", "read as the number it is; nothing to do"),
        ("mask-brackets", "a mask has brackets too many or too few", "read as it is meant; nothing to do"),
        ("mask-part", "a mask has parts of one or two points", "they are left out, and the mask is kept"),
        ("annotation-empty", "an annotation has neither a box nor a mask", "it is left out; nothing to do"),
        ("mask-empty", "an object has a box and no mask", "its box is learned and judged, its mask is not; draw one"),
        (
            "category-root",
            "a category without objects groups others and has the name of one of them",
            "left out; nothing to do, but do the same in both files",
        ),
        (
            "category-parent",
            "a category without objects groups others",
            "it is a class that is never found; remove it from both files, and start a new run",
        ),
        ("crowd-without-rle", "a crowd region is polygons, not RLE", "is it an object? then iscrowd is 0"),
        ("category-unused", "a category has no objects", "nothing can be learned or measured of it"),
        ("category-name", "a category's name is no text", "write a name; it is shown in results and pictures"),
        ("image-without-objects", "an image has no objects", "train leaves it out unless data.keep_empty=true"),
        ("image-small", "a training image is smaller than data.min_image_side", "it is left out; lower the setting"),
        ("file-name-path", "a file name is absolute or has backslashes", "write it from the image folder, with /"),
        (
            "file-name-other",
            "a file is called otherwise than its entry says",
            "it was found all the same (Unicode form, \\, %20, a folder named twice); other tools may not find it",
        ),
        (
            "many-objects",
            "an image has more than 100 objects of one class, where COCO's AP counts 100 detections",
            "judge by more: evaluate max_detections=NUMBER; a model has model.num_proposals detections at most",
        ),
    ),
    # The image files.
    **_rules(
        "error",
        ("image-missing", "an image file does not exist", "check data.*_images, and upper and lower case"),
        ("image-unreadable", "a file is no image that can be read", "export it again as JPEG or PNG"),
        ("image-truncated", "an image file ends early or is damaged inside", "copy or download it again"),
        ("image-size", "an image is of another size than its entry says", "annotate the pixels that are stored"),
        ("image-32-bit", "pixels of 32 bits", "convert it to 8 bits a channel, with a scaling you choose"),
    ),
    **_rules(
        "warning",
        (
            "image-turned",
            "an EXIF note turns an image, and it is read so, in training as in prediction",
            "nothing to do if boxes and masks count on the upright picture, as most tools show it",
        ),
        (
            "image-rotated",
            "an EXIF note turns an image whose entry has the size of the stored pixels",
            "it is read as stored, but prediction turns it: store it upright, or remove the note",
        ),
        (
            "image-16-bit",
            "pixels of 16 bits, read as 8",
            "of values up to 4095 the upper 8 of 12 bits, else of 16: convert it if you mean another scaling",
        ),
        ("image-cmyk", "an image has CMYK colours", "convert it to RGB, or its colours may be off"),
        (
            "image-reduced",
            "16 bits a channel are read as 8",
            "of values up to 4095 the upper 8 of 12 bits (of PNG), else of 16: convert it if you mean another scaling",
        ),
        ("image-alpha", "an image has transparency, which is dropped", "flatten it onto the background you mean"),
        ("image-frames", "a file has several frames, of which the first is read", "store frames one a file"),
    ),
}

VIDEO_RULES = {  # the kinds that only video has
    **_rules(
        "error",
        ("not-youtube-vis", "not a YouTube-VIS annotation file", "give one with lists videos, annotations, categories"),
        ("no-ground-truth", "there are no annotations", "those of its val and test are secret: keep training videos"),
        ("no-videos", "there are no videos", "list the videos in `videos`"),
        ("duplicate-videos-id", "two videos have one id", "give each video its own id; do not just join two files"),
        ("file-names", "a video has no list of file names", "list its frames, from the folder, in file_names"),
        ("video-empty", "a video has no frames", "list them, or remove the video"),
        ("video-length", "a video's length is not the number of its frames", "correct `length`, or leave it out"),
        ("dangling-video", "an annotation names an unlisted video", "add the video, or remove the annotation"),
        ("segmentations-length", "not one mask a frame", "write one, or null, for every frame of the video"),
        ("bboxes-length", "not one box a frame", "write one, or null, for every frame of the video"),
        ("areas-length", "not one area a frame", "write one, or null, for every frame, or leave `areas` out"),
        ("half-visible", "a frame has a box without a mask, or a mask without a box", "both are there, or both null"),
        ("duplicate-frame", "two frames name one file", "was a video listed twice, or cut with an overlap?"),
        ("shared-video", "a video is in both train and val", "remove it from one; val scores would be too good"),
    ),
    **_rules(
        "warning",
        ("never-visible", "an object is seen in no frame", "it is left out: remove it, or draw its masks"),
        ("duplicate-track", "two objects of a video have the same mask", "are they one, with two annotations?"),
        ("frames-unordered", "frames are not in the order of their names", "time runs as file_names are written"),
        ("frames-mixed", "a video's frames are in several folders", "is it one video, or several?"),
        ("video-single-frame", "a video has a single frame", "nothing moves in it; it is paired with itself"),
        ("video-without-objects", "a video has no objects", "train leaves it out unless data.keep_empty=true"),
    ),
}
OF_IMAGES = (  # the kinds that video cannot have
    *("not-coco", "no-images", "duplicate-images-id", "file-name", "dangling-image", "area-all-zero", "duplicate-file"),
    *(
        "shared-image",
        "duplicate-object",
        "image-without-objects",
        "other-format",
        "number-as-text",
        "mask-brackets",
        "mask-part",
    ),
    *(
        "annotation-empty",
        "mask-empty",
        "category-root",
        "category-parent",
        "crowd-many",
        "coordinates-fractions",
        "many-objects",
    ),
)
ALL_RULES = RULES | VIDEO_RULES


def rules_of(video: bool) -> dict[str, Rule]:
    """The kinds that images, or video, can have."""
    return {code: rule for code, rule in ALL_RULES.items() if code not in OF_IMAGES} if video else RULES


def plain(text: str) -> str:
    """Text that every terminal takes on one line: half characters and line breaks become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Finding(NamedTuple):
    """A kind of fault in one split: how often, and the first of them."""

    code: str
    split: str
    times: int
    first: list[str]

    @property
    def rule(self) -> Rule:
        return ALL_RULES[self.code]


class Findings:
    """Counts faults by kind and split, and keeps the first few of each."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], list[str]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, split: str, code: str, where: str) -> None:
        key = code, split
        self._counts[key] = self._counts.get(key, 0) + 1
        first = self._first.setdefault(key, [])
        if len(first) < FIRST:
            first.append(plain(where))

    def __iter__(self) -> Iterator[Finding]:
        """Errors before warnings, as the tables have them."""
        order = {code: (rule.severity, number) for number, (code, rule) in enumerate(ALL_RULES.items())}
        for key in sorted(self._counts, key=lambda key: order[key[0]]):
            yield Finding(*key, self._counts[key], self._first[key])

    def count(self, severity: str) -> int:
        """How many faults of "error" or "warning" there are."""
        return sum(finding.times for finding in self if finding.rule.severity == severity)
