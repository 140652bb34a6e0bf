#!/usr/bin/env bash
# Backups of an installation on servers: its databases by pg_dump, published models and local state as a tar.
#
#   backup.sh once             make one, and delete the oldest beyond BACKUP_KEEP (7)
#   backup.sh always           the same every BACKUP_HOURS (24), for ever
#   backup.sh list             stamp and size of each
#   backup.sh restore STAMP    put one back; what was there stays, as databases called <name>_before_<time>
#   backup.sh recent           succeeds if the newest is younger than twice BACKUP_HOURS
#
# Environment: PGHOST, PGPORT, PGUSER (a superuser), PGPASSWORD; BACKUP_FOLDER; BACKUP_FILES (a folder, optional);
# BACKUP_DATABASES ("estudio airflow mlflow"). Objects in the object store are not in it: keep versions there, or copy it.
set -euo pipefail

folder="${BACKUP_FOLDER:?set BACKUP_FOLDER to the folder of backups}"
files="${BACKUP_FILES:-}"
read -ra databases <<<"${BACKUP_DATABASES:-estudio airflow mlflow}"
hours="${BACKUP_HOURS:-24}"
keep="${BACKUP_KEEP:-7}"

fail() { printf 'backup: %s\n' "$1" >&2; exit 1; }
stamps() { find "$folder" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*T[0-9]*Z' -printf '%f\n' 2>/dev/null | sort; }
query() { psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --dbname postgres --command "$1"; }

once() {
  local stamp partial database old
  stamp="$(date -u +%Y%m%dT%H%M%SZ)"
  partial="$folder/.$stamp.partial"
  mkdir -p "$partial"
  trap "rm -rf '$partial'" EXIT # the name as it is now: a local variable is gone when the trap runs
  for database in "${databases[@]}"; do
    pg_dump --format=custom --dbname "$database" --file "$partial/$database.dump"
  done
  # After the databases: a model is published before anything names it.
  if [[ -n "$files" ]]; then
    tar --create --file "$partial/files.tar" --directory "$files" . || [[ $? == 1 ]] # 1: a file changed meanwhile
  fi
  sync "$partial"/*
  mv "$partial" "$folder/$stamp"
  trap - EXIT
  printf 'backup: %s, %s\n' "$stamp" "$(du -sh "$folder/$stamp" | cut -f1)"
  while read -r old; do rm -rf "${folder:?}/$old"; done < <(stamps | head -n "-$keep")
}

restore() {
  local from="$folder/$1" database others now
  [[ -d "$from" ]] || fail "there is no backup $1 in $folder. There are: $(stamps | tr '\n' ' ')"
  for database in "${databases[@]}"; do
    [[ -f "$from/$database.dump" ]] || fail "$from has no $database.dump"
    others="$(query "SELECT count(*) FROM pg_stat_activity WHERE datname = '$database'")"
    [[ "$others" == 0 ]] || fail "$others sessions use the database $database. Stop what uses it first, Airflow, MLflow and the service."
  done
  now="$(date -u +%Y%m%dt%H%M%Sz)"
  for database in "${databases[@]}"; do
    query "CREATE DATABASE \"${database}_$now\" TEMPLATE template0"
    pg_restore --exit-on-error --single-transaction --dbname "${database}_$now" "$from/$database.dump"
    psql --no-psqlrc --quiet --dbname "${database}_$now" --command ANALYZE
  done
  # All are read: only now do they take the places of what was there.
  for database in "${databases[@]}"; do
    if [[ "$(query "SELECT count(*) FROM pg_database WHERE datname = '$database'")" == 1 ]]; then
      query "ALTER DATABASE \"${database}_$now\" OWNER TO \"$(query "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '$database'")\""
      query "ALTER DATABASE \"$database\" RENAME TO \"${database}_before_$now\""
    fi
    query "ALTER DATABASE \"${database}_$now\" RENAME TO \"$database\""
  done
  if [[ -n "$files" && -f "$from/files.tar" ]]; then
    tar --extract --skip-old-files --file "$from/files.tar" --directory "$files"
  fi
  printf 'backup: %s is back. What was there: databases …_before_%s; drop them when all is well.\n' "$1" "$now"
  printf 'backup: next, the first container again (rights, passwords), then the others, and: estudio doctor\n'
}

case "${1:-}" in
  once) once ;;
  always)
    while true; do
      (once) || printf 'backup: failed, and tried again in %s hours\n' "$hours" >&2
      sleep "$((hours * 3600))"
    done ;;
  list) while read -r stamp; do printf '%s  %s\n' "$stamp" "$(du -sh "$folder/$stamp" | cut -f1)"; done < <(stamps) ;;
  recent) [[ -n "$(find "$folder" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*Z' -mmin "-$((hours * 120))")" ]] ;;
  restore) restore "${2:?give the stamp of a backup: backup.sh list}" ;;
  *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
