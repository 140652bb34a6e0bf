"""A FastAPI application whose one route does nothing: what framework, server and client take by themselves."""

from __future__ import annotations

import argparse

import uvicorn
from fastapi import FastAPI

app = FastAPI(openapi_url=None)


@app.get("/")
@app.post("/")
async def nothing() -> dict[str, bool]:
    """Answer."""
    return {"ok": True}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvicorn.run(app, port=parser.parse_args().port, access_log=False, log_level="warning")
