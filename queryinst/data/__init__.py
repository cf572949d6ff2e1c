"""COCO data: reading, transforming and batching it, and the synthetic data set `shapes`."""
