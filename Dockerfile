# The images that guests run in, one for each role: `agent` (improve: Python's standard library and a shell), `trainer`
# (train: torch, lightning) and `predictor` (predict: torch alone).
#
#     bellglass image build        says size and time first, labels the images so that a stale one is found, and is the usual way
#
# BASE         any glibc image with Python 3.11-3.13 as `python3`, its venv module included (sandbox/base_image.sh makes
#              one from a Debian mirror, where no image registry can be reached)
# TORCH_LOCK   torch-cpu.txt or torch-cuda.txt; TORCH_INDEX is where its wheels are
# wheels/      where the build context has such a folder with *.whl in it, nothing is downloaded
#
# Each image begins from nothing and takes a root that sandbox/slim.py made: it shares no layer with another image, so no
# file of a guest is a file of a guest of another role, and what its base had is not in it. The stages that make the roots
# stay behind as build cache; no guest runs from them.
#
# Written for the legacy builder too: no mounts, no heredocs, no COPY --chmod.
ARG BASE=python:3.11-slim-bookworm

# Python at a fixed place, whatever the base; compiled, because a guest's root is read-only (the official image ships no .pyc).
FROM ${BASE} AS python
RUN set -eu; \
    python3 -c "import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), sys.version"; \
    python3 -m venv --without-pip /opt/glass; \
    python3 -m compileall -q -j 0 -x '/(test|tests|lib2to3|idlelib)/' \
        "$(python3 -c "import sysconfig; print(sysconfig.get_path('stdlib'))")" || true

# The guest's program. A word of its own makes each image's copy a layer of its own.
FROM python AS code
COPY sandbox/guest.py sandbox/glass*.py /code/
RUN set -eu; \
    for kind in agent trainer predictor; do \
        mkdir -p "/made/$kind/opt"; cp -r /code "/made/$kind/opt/bellglass"; echo "$kind" > "/made/$kind/opt/bellglass/kind"; \
        /opt/glass/bin/python -m compileall -q -s "/made/$kind" "/made/$kind/opt/bellglass"; \
    done

# What all images say of themselves; it has no layer.
FROM scratch AS guest
ENV PATH=/opt/glass/bin:/usr/bin:/bin
ENTRYPOINT ["/opt/glass/bin/python", "-I", "/opt/bellglass/guest.py"]

FROM python AS agent-root
COPY sandbox/slim.py /
RUN /opt/glass/bin/python /slim.py agent /made

FROM guest AS agent
COPY --from=agent-root /made /
COPY --from=code /made/agent /

# pip and the downloaded files stay behind in this stage.
FROM python AS libraries
ARG TORCH_LOCK=torch-cpu.txt
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY locks/torch-cpu.txt locks/torch-cuda.txt locks/trainer.txt wheels* /build/
RUN set -eu; \
    python3 -m venv /build/venv; \
    install() { /build/venv/bin/python -m pip --disable-pip-version-check --python /opt/glass/bin/python install \
        --quiet --no-cache-dir --no-deps --only-binary :all: --require-hashes "$@"; }; \
    if ls /build/*.whl >/dev/null 2>&1; then \
        install --no-index --find-links /build -r "/build/${TORCH_LOCK}"; \
        install --no-index --find-links /build -r /build/trainer.txt; \
    else \
        install --index-url "${TORCH_INDEX}" -r "/build/${TORCH_LOCK}"; \
        install -r /build/trainer.txt; \
    fi; \
    rm -rf /build; \
    /opt/glass/bin/python -c "import torch, lightning, numpy, safetensors"

FROM libraries AS roots
COPY sandbox/slim.py /
RUN set -eu; for kind in trainer predictor; do /opt/glass/bin/python /slim.py "$kind" "/made/$kind"; done

FROM guest AS trainer
COPY --from=roots /made/trainer /
COPY --from=code /made/trainer /

FROM guest AS predictor
COPY --from=roots /made/predictor /
COPY --from=code /made/predictor /
