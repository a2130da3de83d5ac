# A member's node without a GPU. Built from the root of the repository: docker build -f deploy/docker/node.Dockerfile .
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY shared shared
COPY client client
COPY server server
COPY simulations simulations
# torch first and from its CPU index alone, so that no CUDA comes with it
RUN python -m venv /opt/hansa \
 && /opt/hansa/bin/pip install -c constraints.txt --index-url https://download.pytorch.org/whl/cpu --no-deps torch==2.13.0 \
 && /opt/hansa/bin/pip install -c constraints.txt '.[client,metrics]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin hansa \
 && install -d -o hansa -g hansa -m 0700 /var/lib/hansa
COPY --from=build /opt/hansa /opt/hansa
ENV PATH=/opt/hansa/bin:$PATH PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 FLWR_TELEMETRY_ENABLED=0 HANSA_LOG_FORMAT=json
USER 10001:10001
VOLUME /var/lib/hansa
STOPSIGNAL SIGTERM
ENTRYPOINT ["hansa"]
CMD ["node", "start", "--home", "/var/lib/hansa"]
