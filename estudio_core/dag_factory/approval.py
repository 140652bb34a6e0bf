"""The question whether a candidate goes live, put to a person in the Airflow UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLBranchOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

RESPONDER_KEY = "responder"
"""Key of the XCom with the name of who answered."""


class ApprovalQuestion(HITLBranchOperator):
    """Goes on with the task that belongs to the answer, and remembers who gave it."""

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Note who answered, then branch."""
        user = event.get("responded_by_user") or {}
        context["ti"].xcom_push(RESPONDER_KEY, user.get("name") or user.get("id") or "somebody")
        return super().execute_complete(context, event)
