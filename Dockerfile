# The images of microfin. Each image is a target:
#
#   docker build --target worker -t ghcr.io/microfin/worker:1.0.0 .
#
# The final images contain an interpreter and one virtual environment, and no compiler and no
# installer. They run as any user, with a read-only root.
ARG PYTHON=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON} AS build
# Uses the certificates of the system, so that a company can mount its own CA for the build.
ENV UV_SYSTEM_CERTS=true UV_NO_CACHE=true UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never \
    PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY images/build.txt images/
RUN python -m venv /build && /build/bin/pip install --quiet --require-hashes -r images/build.txt
RUN python -m venv --without-pip /app
COPY images/install.sh images/

# The pins come first: a change of our sources installs only our own packages again.
FROM build AS build-api
COPY images/api.txt images/
RUN images/install.sh pins images/api.txt
COPY services/core services/core
COPY services/api services/api
RUN images/install.sh members services/core services/api

# This image holds the command line `microfin` as well: the Jobs of a bank run in it.
FROM build AS build-worker
COPY images/worker.txt images/
RUN images/install.sh pins images/worker.txt
COPY services/core services/core
COPY services/worker services/worker
COPY services/tools services/tools
RUN images/install.sh members services/core services/worker services/tools

FROM build AS build-operator
COPY images/operator.txt images/
RUN images/install.sh pins images/operator.txt
COPY operator operator
RUN images/install.sh members operator

FROM ${PYTHON} AS run
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532

FROM run AS api
COPY --from=build-api /app /app
CMD ["python", "-m", "microfin_api"]

FROM run AS worker
COPY --from=build-worker /app /app
CMD ["python", "-m", "microfin_worker"]

FROM run AS operator
COPY --from=build-operator /app /app
CMD ["python", "-m", "microfin_operator"]

# For `skaffold dev`: restarts the process when its sources change in the container.
FROM api AS development-api
COPY images/reload.py /reload.py
CMD ["python", "/reload.py", "microfin_api"]

FROM worker AS development-worker
COPY images/reload.py /reload.py
CMD ["python", "/reload.py", "microfin_worker"]

# For `skaffold verify`: opens accounts and moves money, as `helm test` does.
FROM api AS verify
COPY charts/microfin/files/move_money.py /move_money.py
CMD ["python", "/move_money.py"]
