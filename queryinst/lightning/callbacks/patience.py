"""The end of a training that no longer gets better."""

from pytorch_lightning.callbacks import EarlyStopping


class Patience(EarlyStopping):
    """Ends training after so many evaluations in a row without a better mask AP than the best one before.

    A class of its own, since Lightning keeps the states of callbacks by their class and what they watch, and there may
    be an EarlyStopping of `callbacks.extra` beside it.
    """

    def __init__(self, evaluations: int) -> None:
        super().__init__("val/segm_AP", mode="max", patience=evaluations, check_on_train_epoch_end=False)

    @property
    def reason(self) -> str:
        """Why it has ended the training; empty where it has not."""
        if self.wait_count < self.patience:
            return ""
        best = f"{float(self.best_score):.3f}"
        return f"no mask AP above {best} in {self.wait_count} evaluations in a row (trainer.patience={self.patience})"
