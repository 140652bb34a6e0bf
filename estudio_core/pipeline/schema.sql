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
