if [ -n "$RABBITMQ_DEFAULT_USER" ]; then
    printf 'default_user = %s\ndefault_pass = %s\n' "$RABBITMQ_DEFAULT_USER" "$RABBITMQ_DEFAULT_PASS" >/etc/rabbitmq/conf.d/10-user.conf
fi
unset RABBITMQ_DEFAULT_USER RABBITMQ_DEFAULT_PASS
exec rabbitmq-server
