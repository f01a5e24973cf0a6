# hilbound on the processor: docker build -t hilbound . && docker run --rm hilbound demo
FROM python:3.12-slim

COPY . /source
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu "/source" \
    && rm -rf /source \
    && useradd --create-home user

USER user
WORKDIR /home/user
ENTRYPOINT ["hilbound"]
CMD ["--help"]
