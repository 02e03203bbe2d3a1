# As the official image node:24-bookworm-slim is made: Debian, and Node.js with npm in /usr/local.
FROM sekisho/node-build AS node
FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends libstdc++6 ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules/npm /usr/local/lib/node_modules/npm
WORKDIR /app
COPY package.json package-lock.json ./
RUN node /usr/local/lib/node_modules/npm/bin/npm-cli.js ci --omit=dev && rm -rf /root/.npm
COPY . .
USER 10001
CMD ["node", "src/server.js"]
