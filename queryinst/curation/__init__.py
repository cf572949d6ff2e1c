"""COCO files made of COCO files: split, merged, filtered, mended. What is given is never changed."""
