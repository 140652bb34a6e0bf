"""The routes below `/estudio`: pages to read. What changes something goes through Airflow's own API.

The rollback button starts the plugin's rollback DAG with the user's own session, so that Airflow decides who may, and
its run, log and audit trail are the ordinary ones.
"""

from __future__ import annotations

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse

from estudio_core.airflow_ui.access import Reader, SignedIn, reads, rolls_back

PREFIX = "/estudio"

# No generated documentation: its routes would be open to everybody.
app = FastAPI(title="Estudio", docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/")
def overview(user: SignedIn) -> HTMLResponse:
    """Show the plugins that the user may look at, with what is live."""
    from estudio_core.airflow_ui import content, pages

    shown = [plugin for plugin in content.plugin_names() if reads(user, plugin)]
    return HTMLResponse(pages.overview(content.overviews(shown)))


@app.get("/plugins/{plugin}")
def plugin_page(plugin: str, user: Reader) -> HTMLResponse:
    """Show releases, promotions, metrics and reports of a plugin."""
    from estudio_core.airflow_ui import content, pages

    if plugin not in content.plugin_names():
        raise HTTPException(404, f"Nothing is known of a plugin {plugin!r}. Run its DAG {plugin}__initialize first.")
    return HTMLResponse(pages.plugin_page(content.plugin_content(plugin), rollback=rolls_back(user, plugin)))


@app.get("/plugins/{plugin}/models/{name}")
def model(plugin: str, name: str, user: Reader) -> HTMLResponse:
    """Show a published model: what it is, its files, and whether Triton serves it."""
    from estudio_core.airflow_ui import content, pages

    found = content.model(plugin, name)
    if found is None:
        raise HTTPException(404, f"The model repository has no model {name!r} of plugin {plugin!r}.")
    return HTMLResponse(pages.model_page(*found))


@app.get("/plugins/{plugin}/report")
def report(plugin: str, user: Reader, run_id: str | None = None) -> HTMLResponse:
    """Show the evaluation report of a training; of the latest where no run is named."""
    from estudio_core.airflow_ui import content

    return _own_page(content.report(plugin, run_id))


@app.get("/plugins/{plugin}/improvement")
def improvement(plugin: str, user: Reader, run_id: str) -> HTMLResponse:
    """Show the report of an improvement."""
    from estudio_core.airflow_ui import content

    return _own_page(content.improvement_report(plugin, run_id))


def _own_page(html: str | None) -> HTMLResponse:
    if html is None:
        raise HTTPException(404, "There is no such report.")
    # The report is our own page about texts from outside: it may draw itself and nothing else.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
    return HTMLResponse(html, headers={"Content-Security-Policy": policy})
