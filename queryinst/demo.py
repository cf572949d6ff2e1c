"""`python -m queryinst.demo`: a page in the browser to try a model on images, stage by stage.

python -m queryinst.demo checkpoint=outputs/RUN/best.ckpt
python -m queryinst.demo checkpoint=... port=8000 score=0.5
python -m queryinst.demo checkpoint=mmdet:1x_pro100                 published weights, fetched once
"""

import importlib.util
import os
import signal
import socket
import tempfile

from queryinst.command_config import DemoConfig
from queryinst.errors import UserError
from queryinst.studies.command import command


def require_gradio() -> None:
    """Raise UserError unless the page can be made."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page is made with gradio, which is not installed: pip install 'queryinst[demo]'")


def require_free(port: int) -> None:
    """Raise UserError where something listens on the port already."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"port={port} is in use, perhaps by another page; give another, such as port={port + 1}")


@command("demo", DemoConfig)
def main(config: DemoConfig) -> None:
    require_gradio()
    require_free(config.port)
    from queryinst.checkpoints.load import load
    from queryinst.demo_page.answer import answerer
    from queryinst.inference.predictor import device_of

    checkpoint = load(config.checkpoint, config.allow)
    model = checkpoint.build().to(device_of(config.accelerator))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends in good order, as Ctrl+C does
    with tempfile.TemporaryDirectory(prefix="queryinst-demo-") as folder:
        # Before Gradio is imported: uploads end with the page, nothing is reported home, and no proxy is asked for the
        # way to this machine.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        os.environ["no_proxy"] = ",".join(filter(None, [os.environ.get("no_proxy"), "127.0.0.1"]))
        from queryinst.demo_page.page import serve

        serve(
            answerer(model, checkpoint, config.megapixels),
            title=f"queryinst: {config.checkpoint}",
            stages=len(model.stages),
            proposals=model.queries.number,
            score=config.score,
            port=config.port,
            megabytes=config.megabytes,
            queue=config.queue,
        )


if __name__ == "__main__":
    main()
