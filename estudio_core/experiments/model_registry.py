"""Registered versions of one plugin's model: folders with a digest, aliases, and who moved them when."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from estudio_core.artifacts import safe_name
from estudio_core.errors import ConfigurationError, ModelError
from estudio_core.experiments.alias_audit import (
    AUDIT_TAG,
    KNOWN_TAG,
    TAG_UNITS,
    Alias,
    AliasMove,
    AuditEntry,
    entries_of,
    fitted,
    foreign_moves_of,
)
from estudio_core.experiments.mlflow_client import MLflowClientWrapper
from estudio_core.settings import get_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

logger = logging.getLogger(__name__)

DIGEST_TAG = "estudio.digest"
FAILURE_TAG = "estudio.release"
"""Tag of a model version whose last release failed: the reason."""
_MODELS_PER_PAGE = 100
_MOST_DIGITS = 18


@dataclass(frozen=True)
class RegisteredVersion:
    """A version as the registry knows it."""

    version: int
    digest: str
    run_id: str | None
    source: str
    created_ms: int
    tags: dict[str, str]


class ModelRegistry:
    """The registered model of one plugin.

    Changes are serialised among the processes of this machine; over several machines, run one promotion at a
    time (aliases in MLflow are last-writer-wins).
    """

    def __init__(self, wrapper: MLflowClientWrapper, name: str) -> None:
        self.wrapper = wrapper
        self.name = name

    def register(
        self, folder: Path, *, experiment_id: str, run_id: str, tags: Mapping[str, str], params: Mapping[str, str]
    ) -> int:
        """Upload a model folder and register it; the same content again returns the version it has.

        Raises:
            ModelError: the folder is missing or empty.
            TrackingUnavailableError: the server does not answer.
        """
        digest = folder_digest(folder)
        with self.wrapper.lock(f"registry-{self.name}"):
            existing = self.wrapper.call(lambda client: self._version_of(client, digest))
            if existing is not None:
                return existing
            return self.wrapper.call(
                lambda client: self._upload(client, folder, digest, experiment_id, run_id, tags, params)
            )

    def aliases(self) -> dict[str, int]:
        """Return alias -> version; empty where nothing is registered."""
        model = self.wrapper.call(self._registered_model)
        return {} if model is None else {alias: int(version) for alias, version in sorted(model.aliases.items())}

    def resolve(self, version: int | str) -> int:
        """Return the number of a version given as a number or an alias.

        Raises:
            ConfigurationError: there is no such version or alias.
        """
        known = self.versions()
        aliases = self.aliases()
        for number in (_number(version), aliases.get(str(version))):
            if number is not None and number in known:
                return number
        raise ConfigurationError(
            f"Model {self.name!r} has no version or alias {version!r}. "
            f"Versions: {sorted(known) or 'none'}; aliases: {aliases or 'none'}. "
            + ("Give one of these." if known else "Run the plugin's initialize DAG to register its base model.")
        )

    def versions(self) -> dict[int, RegisteredVersion]:
        """Return all versions by number."""
        found = self.wrapper.call(self._all_versions)
        return {int(version.version): _registered_version(version) for version in found}

    def set_alias(
        self, alias: Alias, version: int, *, reason: str, actor: str, numbers: Mapping[str, float] | None = None
    ) -> None:
        """Let an alias name `version`, and write down who did it and why."""
        version = self.resolve(version)
        with self.wrapper.lock(f"registry-{self.name}"):
            self._move(alias, version, "set", reason, actor, numbers or {})

    def delete_alias(self, alias: Alias, *, reason: str, actor: str) -> None:
        """Take an alias away, if it is there."""
        with self.wrapper.lock(f"registry-{self.name}"):
            if alias in self.aliases():
                self._move(alias, None, "delete", reason, actor, {})

    def promote(
        self,
        version: int | str,
        *,
        reason: str,
        actor: str,
        numbers: Mapping[str, float] | None = None,
        action: str = "promote",
        former: int | None = None,
    ) -> int | None:
        """Make `version` the champion and the former champion `previous`; return the former one.

        A version that is not registered any more serves all the same: then `champion` names nothing, rather than one
        that does not serve. Promoting the champion again changes nothing. A kill in between leaves a state from which
        the same call completes: `champion` moves last. A champion that somebody has named in MLflow since is left
        alone: that is the next promotion.

        Args:
            version: Number or alias.
            reason: For the audit trail.
            actor: For the audit trail.
            numbers: For the audit trail.
            action: For the audit trail.
            former: The version that served before; by default the one that `champion` names.
        """
        known = self.versions()
        number = _number(version)
        gone = known and number is not None and number not in known
        target = None if gone else self.resolve(version)
        with self.wrapper.lock(f"registry-{self.name}"):
            aliases = self.aliases()
            named = aliases.get("champion")
            before = former if former is not None else named
            if before in {None, target}:
                before = aliases.get("previous")
            elif before in known and aliases.get("previous") != before:
                self._point("previous", int(before or 0))
            moved_since = {move.alias: move.version for move in self.foreign_moves()}
            if moved_since.get("champion") in {None, target}:
                self._move("champion", target, action, reason, actor, numbers or {})
            if target is not None and aliases.get("challenger") == target:
                self._move("challenger", None, "end", "it is the champion", actor, {})
        return before

    def foreign_moves(self) -> list[AliasMove]:
        """Return the aliases `champion` and `challenger` that name a version which Estudio did not let them name.

        What Estudio moves it writes down first, then moves, then notes as known. A move that is under way, or was
        killed in between, is none of somebody else's.
        """
        model = self.wrapper.call(self._registered_model)
        return [] if model is None else foreign_moves_of(model)

    def acknowledge(self, move: AliasMove, actor: str) -> None:
        """Write a foreign move down: it is not foreign any more."""
        with self.wrapper.lock(f"registry-{self.name}"):
            self.record(
                "set in MLflow", alias=move.alias, from_version=move.before, to_version=move.version, actor=actor,
                reason="seen by the watcher",
            )  # fmt: skip
            self._note_known(move.alias, move.version)

    def put_back(self, alias: Alias, version: int | None, *, reason: str, actor: str) -> None:
        """Let an alias name what it named before (None, or a version that is gone: nothing).

        One that somebody has moved since stays.
        """
        version = version if version in self.versions() else None
        with self.wrapper.lock(f"registry-{self.name}"):
            moved = {move.alias for move in self.foreign_moves()}
            if alias not in moved and self.aliases().get(alias) != version:
                self._move(alias, version, "put back", reason, actor, {})

    def numbers_of(self, version: int) -> dict[str, float]:
        """Return the metrics of the gate that a version was registered with.

        Empty where there was no gate, or where the version or its run is gone.
        """
        found = self.versions().get(version)
        if found is None or found.run_id is None:
            return {}
        run_id = found.run_id
        metrics = self.wrapper.call(lambda client: _metrics(client, run_id))
        return {name: value for name, value in sorted(metrics.items()) if name.endswith(("_before", "_after", "_gain"))}

    def record(
        self,
        action: str,
        *,
        alias: str,
        from_version: int | None,
        to_version: int | None,
        actor: str,
        reason: str,
        numbers: Mapping[str, float] | None = None,
    ) -> AuditEntry:
        """Add an entry to the audit trail: a tag of the registered model, and of the version it is about."""
        at = datetime.now(UTC).isoformat(timespec="microseconds")
        entry = AuditEntry.of(at, action, alias, (from_version, to_version), actor, reason, numbers or {})
        about = to_version if to_version is not None else from_version

        def write(client: MlflowClient) -> None:
            key = AUDIT_TAG + entry.at.replace(":", "-").replace("+", "_")
            client.set_registered_model_tag(self.name, key, entry.as_tag())
            if about is not None:
                told = {
                    f"estudio.{alias}": fitted(f"{action}: {reason}"),
                    f"estudio.{alias}.by": f"{entry.actor}, {entry.at}",
                }
                self._tag(client, about, told)

        self.wrapper.call(write)
        return entry

    def audit_trail(self) -> list[AuditEntry]:
        """Return all recorded moves, oldest first."""
        model = self.wrapper.call(self._registered_model)
        if model is None:
            return []
        return entries_of(model)

    def set_tags(self, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version, cut to what is stored; one that is not registered any more needs none."""
        self.wrapper.call(lambda client: self._tag(client, version, tags))

    def delete_tag(self, version: int, key: str) -> None:
        """Take a tag off a version, if both are there."""

        def delete(client: MlflowClient) -> None:
            with _unless_gone():
                if key in client.get_model_version(self.name, str(version)).tags:
                    client.delete_model_version_tag(self.name, str(version), key)

        self.wrapper.call(delete)

    def tell_failure(self, version: int, reason: str) -> None:
        """Leave on a version why its release failed, unless it says so already or is gone."""
        text = fitted(f"failed: {reason}")
        found = self.versions().get(version)
        if found is not None and found.tags.get(FAILURE_TAG) != text:
            self.set_tags(version, {FAILURE_TAG: text})

    def _tag(self, client: MlflowClient, version: int, tags: Mapping[str, str]) -> None:
        with _unless_gone():
            for key, value in tags.items():
                client.set_model_version_tag(self.name, str(version), key, fitted(value, TAG_UNITS))

    def download(self, version: int | str) -> Path:
        """Return a local folder with a version's files, downloaded once and checked by digest.

        The folder is a cache under `<home>/models`; do not write into it.

        Raises:
            ConfigurationError: there is no such version or alias.
            ModelError: the files differ from what was registered.
        """
        number = self.resolve(version)
        known = self.versions()[number]
        if not known.digest:
            raise ModelError(
                f"Version {number} of {self.name!r} was not registered by Estudio: it has no tag {DIGEST_TAG}. "
                "Register a folder written by save_model with ExperimentsManager.register_model, or choose another one."
            )
        target = self._downloads / f"v{number}-{known.digest[:12]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):  # whoever shares the folder
            if target.is_dir() and folder_digest(target) == known.digest:
                return target
            staging = target.with_name(f".{target.name}.staging")
            for leftover in (staging, target):
                shutil.rmtree(leftover, ignore_errors=True)
            staging.mkdir(parents=True)
            try:
                fetched = self.wrapper.call(lambda client: self._fetch(known.source, staging))
            except (ConfigurationError, OSError) as error:
                shutil.rmtree(staging)
                raise ModelError(
                    f"The files of version {number} of {self.name!r} cannot be fetched from {known.source}: {error}. "
                    "Restore them, or choose another version."
                ) from error
            if folder_digest(fetched) != known.digest:
                shutil.rmtree(staging)
                raise ModelError(
                    f"Version {number} of {self.name!r} at {known.source} is not what was registered: its digest "
                    f"differs. Restore the files, or choose another version."
                )
            fetched.rename(target)
            shutil.rmtree(staging, ignore_errors=True)
        return target

    def forget_downloads(self) -> None:
        """Delete the local copies of versions; whoever needs one fetches it again."""
        shutil.rmtree(self._downloads, ignore_errors=True)

    @property
    def _downloads(self) -> Path:
        return get_settings().home.resolve() / "models" / safe_name(self.name)

    def _fetch(self, source: str, staging: Path) -> Path:
        import mlflow.artifacts

        fetched = mlflow.artifacts.download_artifacts(
            artifact_uri=source, dst_path=str(staging), tracking_uri=self.wrapper.tracking_uri
        )
        return Path(fetched)

    def _move(
        self, alias: Alias, version: int | None, action: str, reason: str, actor: str, numbers: Mapping[str, float]
    ) -> None:
        """Write a move down, make it, note it as known. What a killed attempt has done is not done again."""
        named = self.aliases().get(alias)
        last = next((entry for entry in reversed(self.audit_trail()) if entry.alias == alias), None)
        if named == version:
            told = (last.to_version if last else None) == version
        else:
            mine = AuditEntry.of("", action, alias, (named, version), actor, reason, {})
            told = last is not None and mine == replace(last, at="", numbers={})
        if not told:
            self.record(
                action, alias=alias, from_version=named, to_version=version, actor=actor, reason=reason,
                numbers=numbers,
            )  # fmt: skip
        if named != version and version is None:
            self.wrapper.call(lambda client: client.delete_registered_model_alias(self.name, alias))
        elif named != version and version is not None:
            self._point(alias, version)
        self._note_known(alias, version)

    def _note_known(self, alias: Alias, version: int | None) -> None:
        text = "" if version is None else str(version)
        self.wrapper.call(lambda client: client.set_registered_model_tag(self.name, KNOWN_TAG + alias, text))

    def _point(self, alias: Alias, version: int) -> None:
        self.wrapper.call(lambda client: client.set_registered_model_alias(self.name, alias, str(version)))

    def _registered_model(self, client: MlflowClient) -> RegisteredModel | None:
        from mlflow.exceptions import MlflowException

        try:
            return client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _all_versions(self, client: MlflowClient) -> list[ModelVersion]:
        found: list[ModelVersion] = []
        token = None
        while True:
            page = client.search_model_versions(f"name = '{self.name}'", max_results=_MODELS_PER_PAGE, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _version_of(self, client: MlflowClient, digest: str) -> int | None:
        found = client.search_model_versions(f"name = '{self.name}' and tags.`{DIGEST_TAG}` = '{digest}'")
        return min((int(version.version) for version in found), default=None)

    def _upload(
        self,
        client: MlflowClient,
        folder: Path,
        digest: str,
        experiment_id: str,
        run_id: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
    ) -> int:
        from mlflow.entities import LoggedModelOutput

        existing = self._version_of(client, digest)  # a retry whose first answer was lost
        if existing is not None:
            return existing
        if self._registered_model(client) is None:
            client.create_registered_model(self.name, description=f"Embedding model of the search plugin {self.name}.")
        # A killed attempt has left a logged model that never became READY: its place is used again.
        unfinished = client.search_logged_models([experiment_id], filter_string=f"tags.`{DIGEST_TAG}` = '{digest}'")
        model = next((one for one in unfinished if one.source_run_id == run_id), None)
        if model is None:
            model = client.create_logged_model(
                experiment_id, name=self.name, source_run_id=run_id, model_type="text-embedding",
                tags={DIGEST_TAG: digest, **tags}, params=dict(params),
            )  # fmt: skip
        if str(model.status) != "READY":
            client.log_model_artifacts(model.model_id, str(folder))
            client.finalize_logged_model(model.model_id, "READY")
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        # The location rather than models:/<id>: MLflow resolves the latter by the process-wide tracking URI.
        version = client.create_model_version(
            self.name, model.artifact_location, run_id, tags={DIGEST_TAG: digest, **tags}, model_id=model.model_id
        )
        link = json.dumps([{"name": self.name, "version": int(version.version)}])
        client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})
        return int(version.version)


def _number(version: int | str) -> int | None:
    """Return a version that is given by its number; None of an alias, and of what no number of a version is."""
    return int(version) if str(version).isdecimal() and len(str(version)) <= _MOST_DIGITS else None


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Leave out what is to be done to a version that is not registered any more."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def folder_digest(folder: Path) -> str:
    """Return the sha256 over the relative paths and contents of a folder's files.

    Raises:
        ModelError: the folder is missing or empty.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        raise ModelError(f"There is no model in {folder}: give a folder written by save_model.")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\x1f{content}\x1e".encode())
    return digest.hexdigest()


def _metrics(client: MlflowClient, run_id: str) -> dict[str, float]:
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_run(run_id).data.metrics)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _registered_version(version: Any) -> RegisteredVersion:
    return RegisteredVersion(
        version=int(version.version),
        digest=version.tags.get(DIGEST_TAG, ""),
        run_id=version.run_id or None,
        source=version.source,
        created_ms=int(version.creation_timestamp),
        tags=dict(version.tags),
    )
