# Airflow, training and MLflow's server in one image, with the versions of requirements.lock.
FROM python:3.11.14-slim-bookworm

# cpu, or cu128 and the like for training on a GPU, with gpu among the extras (docker-compose.gpu.yaml does both).
ARG TORCH_BACKEND=cpu
ARG EXTRAS=airflow,train,triton,s3,ray,celery,service,traces,fab,model

# Modules are compiled once, in the image: each Airflow task is a process of its own and would compile them anew.
ENV PYTHONUNBUFFERED=1 \
    UV_COMPILE_BYTECODE=1 \
    UV_SYSTEM_PYTHON=1 \
    UV_NO_CACHE=1 \
    AIRFLOW_HOME=/opt/airflow

RUN pip install --no-cache-dir uv \
    && useradd --create-home --uid 50000 estudio \
    && mkdir -p /opt/estudio/state /opt/estudio/triton_repo \
       /opt/airflow/logs /opt/airflow/state /opt/airflow/ui_plugins \
    && chown -R estudio /opt/estudio /opt/airflow

WORKDIR /opt/estudio
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY estudio_core estudio_core
COPY lightning_modules lightning_modules
COPY scripts scripts
# onnxruntime and onnxruntime-gpu install the same module.
RUN case ",$EXTRAS," in \
      *,gpu,*) sed -i '/^onnxruntime==/d' requirements.lock; gpu="--override scripts/gpu.overrides.txt" ;; \
    esac \
    && uv pip install --torch-backend "$TORCH_BACKEND" --constraint requirements.lock ${gpu:-} ".[$EXTRAS]"

COPY dags dags
COPY plugins plugins
USER estudio
