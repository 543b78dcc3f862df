# Stands for python:3.11-slim-bookworm where no registry can be reached: Debian's own Python under the names of that image.
FROM chat-test-base
RUN ln -sf /usr/bin/python3 /usr/local/bin/python3 && ln -sf /usr/bin/python3 /usr/local/bin/python
RUN apt-get update -q && apt-get install -y -q --no-install-recommends python3-dev # that image has the headers
# Whom this machine trusts: where packages come through a proxy, that is more than Debian's list.
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV LANG=C.UTF-8 PIP_CERT=/etc/ssl/certs/ca-certificates.crt
CMD ["python3"]
