-- Progress of running tasks, for whoever watches; one row per task of a run.
CREATE TABLE IF NOT EXISTS estudio.progress (
    dag_id text NOT NULL,
    run_id text NOT NULL,
    task_id text NOT NULL,
    map_index int NOT NULL,
    step text NOT NULL,
    done bigint NOT NULL,
    total bigint,
    unit text NOT NULL,
    message text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dag_id, run_id, task_id, map_index)
);

-- Evaluated candidates: up to which session they were trained, and where their reports are.
CREATE TABLE IF NOT EXISTS estudio.trainings (
    plugin     text NOT NULL,
    run_id     text NOT NULL,
    until      timestamptz NOT NULL,
    version    text,                       -- NULL for a dry run
    promoted   boolean NOT NULL,
    reason     text NOT NULL,
    report_uri text NOT NULL,              -- folder with report.html and report.json
    numbers    jsonb NOT NULL DEFAULT '{}',
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (plugin, run_id)
);
