"""The routes below `/estudio`: pages to read. What changes something goes through Airflow's own API.

Each button starts a DAG of the plugin with the user's own session, so that Airflow decides who may, and its run, log
and audit trail are the ordinary ones.
"""

from __future__ import annotations

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse

from estudio_core.airflow_ui.access import Reader, SignedIn, allowed, reads
from estudio_core.airflow_ui.runs import missing_pools, plugins_with_dags, runs_of
from estudio_core.errors import EstudioError

PREFIX = "/estudio"

# No generated documentation: its routes would be open to everybody.
app = FastAPI(title="Estudio", docs_url=None, redoc_url=None, openapi_url=None)


@app.exception_handler(EstudioError)
def explained(request: Request, error: EstudioError) -> HTMLResponse:
    """Say what is wrong, and the command that mends it, in place of the page."""
    from estudio_core.airflow_ui import pages

    return HTMLResponse(pages.problem_page(str(error)), status_code=503)


@app.get("/")
def overview(user: SignedIn, session: SessionDep) -> HTMLResponse:
    """Show the plugins that the user may look at, each at a glance."""
    from estudio_core.airflow_ui import content, glance, pages

    shown = [plugin for plugin in content.plugin_names(plugins_with_dags(session)) if reads(user, plugin)]
    found = glance.glances(runs_of(session, shown))
    return HTMLResponse(pages.overview([(each, allowed(user, each)) for each in found], missing_pools(session)))


@app.get("/plugins/{plugin}")
def plugin_page(plugin: str, user: Reader, session: SessionDep) -> HTMLResponse:
    """Show a plugin at a glance, and its releases, promotions, metrics and reports."""
    from estudio_core.airflow_ui import content, glance, pages

    if plugin not in content.plugin_names(plugins_with_dags(session)):
        raise HTTPException(404, f"There is no plugin {plugin!r}: no DAG {plugin}__initialize and no release.")
    [found] = glance.glances(runs_of(session, [plugin]))
    return HTMLResponse(pages.plugin_page(found, allowed(user, found), content.plugin_content(plugin)))


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
