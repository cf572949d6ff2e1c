"""The network in plain PyTorch. Nothing here knows targets, Lightning or Hydra."""
