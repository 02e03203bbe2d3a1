# As people write it: golang's image to compile, Debian to run.
FROM sekisho/go-build AS build
USER root
ENV GOTOOLCHAIN=local GOSUMDB=off CGO_ENABLED=0 GOCACHE=/root/.cache/go-build GOPATH=/root/go
WORKDIR /src
COPY go.mod go.sum ./
RUN /usr/local/go/bin/go mod download
COPY . .
RUN /usr/local/go/bin/go build -trimpath -ldflags "-s -w" -o /app .
FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /app /usr/local/bin/app
USER 10001
CMD ["/usr/local/bin/app"]
