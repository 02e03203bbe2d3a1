FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-pip ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.txt .
RUN pip install --break-system-packages --no-cache-dir --require-hashes -r requirements.txt
COPY . .
USER 10001
CMD ["python3", "-m", "guestbook"]
