# Prometheus in an image, where its makers' cannot be pulled. The build context is a folder with the
# program.
ARG BASE=docker.io/library/python:3.13-slim-trixie
FROM ${BASE}
COPY prometheus /usr/bin/prometheus
USER 65532:65532
ENTRYPOINT ["prometheus"]
