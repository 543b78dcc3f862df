# Stands for python:3.11-slim-bookworm where no registry can be reached: Debian's own Python under the names of that image.
FROM chat-test-base
RUN ln -sf /usr/bin/python3 /usr/local/bin/python3 && ln -sf /usr/bin/python3 /usr/local/bin/python
ENV LANG=C.UTF-8
CMD ["python3"]
