"""QueryInst ("Instances as Queries", ICCV 2021): a Lightning and Hydra experiment framework."""

__version__ = "0.1.0"
