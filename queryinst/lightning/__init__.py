"""Everything that knows PyTorch Lightning, besides `data/datamodule.py` and the commands."""
