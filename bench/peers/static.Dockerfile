FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends lighttpd && rm -rf /var/lib/apt/lists/*
COPY public /var/www/html
USER 10001
CMD ["lighttpd", "-D", "-f", "/etc/lighttpd/lighttpd.conf"]
