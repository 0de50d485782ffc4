# Two stages: build on Debian 12, run as a user without rights. The model and adapters come in as volumes:
#   docker run -p 8080:8080 -v /path/to/model:/model:ro -v /path/to/adapters:/adapters:ro lorikeet
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends make ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN apt-get update && make deps && make -j"$(nproc)" all && make install DESTDIR=/out PREFIX=/usr

FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libmicrohttpd12 libjansson4 libuv1 libopenblas0-pthread \
        libpcre2-8-0 libutf8proc2 libcyaml1 libcurl4 libgnutls30 libsqlite3-0 libxxhash0 libexttextcat-2.0-0 libexttextcat-data curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin lorikeet
COPY --from=build /out/ /
USER lorikeet
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s CMD curl -fsS http://127.0.0.1:8080/readyz || exit 1
ENTRYPOINT ["lorikeet"]
CMD ["serve", "--model", "/model", "--adapters", "/adapters", "--listen", "0.0.0.0:8080", \
     "--admin-listen", "unix:/tmp/lorikeet-admin.sock"]
