# The rule service. torch exists in the build stage alone: it exports the encoder and embeds the rules.
# BASE must hold Python 3.11 or newer as `python3`, with venv.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# An alternative wheel source for torch, e.g. one that offers CPU builds; empty means pip's own default.
ARG TORCH_FIND_LINKS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY rules rules
COPY rule_server rule_server
RUN python3 -m venv /build && /build/bin/pip install --quiet -c constraints.txt ${TORCH_FIND_LINKS:+--find-links "$TORCH_FIND_LINKS"} torch \
    && /build/bin/pip install --quiet -c constraints.txt '.[build,offline]' \
    && /build/bin/ascl-rules build --artefact /artefact
RUN python3 -m venv /app && /app/bin/pip install --quiet -c constraints.txt '.[server]'

FROM ${BASE}
RUN useradd --system --uid 10001 --no-create-home ascl
COPY --from=build /app /app
COPY --from=build --chown=10001 /artefact /artefact
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ASCL_RULES_ARTEFACT=/artefact HF_HUB_OFFLINE=1
USER 10001
EXPOSE 8808
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8808/readyz', timeout=2)"]
# Inside a container loopback is unreachable from outside, so the service listens on all addresses and says so by
# its flag; publish the port on the host's loopback (see docker-compose.yml).
ENTRYPOINT ["ascl-rules"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8808", "--allow-anonymous", "--no-watch"]
