"""Requests that nobody would write by hand, made from the service's own document: each is answered, none with a 500."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error

from tests.service.conftest import Service

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
"""Of each operation; `make proof` makes more."""


@schemathesis.serializer("application/x-ndjson")
def lines_of_json(context: Any, value: Any) -> bytes:
    """Send what was drawn as lines: those of a list, or of a header and a search."""
    listed = value if isinstance(value, list) else [{"index": "library"}, value]
    return b"\n".join(each if isinstance(each, bytes) else json.dumps(each).encode() for each in listed)


def test_no_request_made_from_the_document_fails_the_service(service: Service) -> None:
    headers = {"Authorization": f"Bearer {service.key('admin', plugins=('*',))}"}
    schema = schemathesis.openapi.from_url(f"{service.address}/openapi.json")
    statuses: Counter[int] = Counter()
    operations = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        operations += 1
        strategy = operation.as_strategy() | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=strategy)
        def run(case: schemathesis.Case) -> None:
            # Half of the plugins that are drawn are there.
            if "plugin" in (case.path_parameters or {}) and len(case.path_parameters["plugin"]) % 2:
                case.path_parameters["plugin"] = "library"
            try:
                response = case.call(headers=headers, timeout=30)
            except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, UnicodeError, ValueError):
                return  # nothing that a client can send
            statuses[response.status_code] += 1
            case.validate_response(response, checks=[not_a_server_error])
            assert response.status_code != 503 or case.operation.path == "/readyz"

        run()
    assert operations > 25
    assert statuses[200] + statuses[201] > 20, statuses
    assert statuses[400] > 20, statuses
    print(dict(statuses))
