"""The page itself, in Gradio: an upload, three sliders, masks, and boxes on their way. It is on 127.0.0.1 alone."""

import gradio
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from queryinst.demo_page.answer import Answerer
from queryinst.demo_page.upload import SUFFIXES
from queryinst.errors import UserError

HOST = "127.0.0.1"
KEPT = 600  # seconds that uploads stay
CSS = """
.film { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20em, 100%), 1fr)); gap: 0 1em; }
.film.stills { display: flex; flex-wrap: wrap; gap: 0.5em; margin-top: 1em; }
.film.stills figure { flex: 1 1 7em; max-width: 14em; }
.film figure { margin: 0; }
.film figcaption { text-align: center; font-size: 14px; }
.film svg, .film img { width: 100%; height: auto; display: block; }
.film img, .film .moving { max-height: 60vh; object-fit: contain; }
.film rect { fill: transparent; stroke-width: 2.5px; vector-effect: non-scaling-stroke; }
.film.stills rect { stroke-width: 1.6px; }
.film svg.clock { height: 1.5em; }
.film .clock text { font: 14px system-ui, sans-serif; fill: currentColor; text-anchor: middle; }
.said .count { font-size: 1.3em; font-weight: 600; }
.said p { margin: 0.2em 0; }
.said .problem { color: #dc2626; font-weight: 600; }
"""


def serve(
    answer: Answerer, *, title: str, stages: int, proposals: int, score: float, port: int, megabytes: int, queue: int
) -> None:
    """Serve the page on the loopback interface until interrupted.

    Args:
        answer: see `queryinst.demo_page.answer.answerer`.
        title: of the page.
        stages, proposals, score: how many the model has, and where the threshold begins.
        port: to listen on.
        megabytes: largest file that is taken.
        queue: requests that may wait; one is answered at a time.

    Raises:
        UserError: the port is in use.
    """
    page = _page(answer, title, stages, proposals, score).queue(max_size=queue, default_concurrency_limit=1)
    try:
        page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=f"{megabytes}mb",
            # A page elsewhere whose name is made to lead here is not this page.
            app_kwargs={"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])]},
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=CSS,
        )
    except OSError as error:
        raise UserError(f"the page cannot listen on port {port} ({error}); give another port=NUMBER") from None
    print(f"the page is at http://{HOST}:{port}; Ctrl+C ends it", flush=True)
    page.block_thread()


def _page(answer: Answerer, title: str, stages: int, proposals: int, score: float) -> gradio.Blocks:
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gradio.Markdown(f"## {title}")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=280):
                file = gradio.File(label="image file", file_types=SUFFIXES, height=130)
                threshold = gradio.Slider(0, 1, score, step=0.01, label="score, at least")
                depth = gradio.Slider(1, stages, stages, step=1, label="stages", visible=stages > 1)
                width = gradio.Slider(
                    1, proposals, proposals, step=1, label="proposals after stage 1", visible=proposals > 1
                )
                words = gradio.HTML(answer(None, score, stages, proposals)[-1])
            with gradio.Column(scale=6):
                pictures = gradio.HTML()
        gradio.on(
            [file.change, threshold.change, depth.change, width.change],
            answer,
            [file, threshold, depth, width],
            [pictures, words],
            show_progress="hidden",
            trigger_mode="always_last",
            api_visibility="private",
        )
    return page
