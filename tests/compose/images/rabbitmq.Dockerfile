# Stands for rabbitmq:3-management: what compose.yaml leans on, which is the user of the environment and the plugin.
FROM chat-test-base
RUN echo '[rabbitmq_management].' > /etc/rabbitmq/enabled_plugins \
 && rm -rf /var/lib/rabbitmq/* /var/lib/rabbitmq/.erlang.cookie && install -d -o rabbitmq -g rabbitmq /etc/rabbitmq/conf.d /var/lib/rabbitmq
COPY rabbitmq.sh /usr/local/bin/start-rabbitmq
VOLUME /var/lib/rabbitmq
USER rabbitmq
ENV HOME=/var/lib/rabbitmq PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["sh", "/usr/local/bin/start-rabbitmq"]
