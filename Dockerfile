# hilbound on the processor: docker build -t hilbound . && docker run --rm hilbound demo
FROM python:3.12-slim AS wheel

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim

# The index has builds of PyTorch without CUDA, which take a tenth of the space.
COPY constraints.txt /install/
COPY --from=wheel /wheels /install/
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        --constraint /install/constraints.txt /install/*.whl \
    && useradd --create-home user

USER user
WORKDIR /home/user
ENTRYPOINT ["hilbound"]
CMD ["--help"]
