# syntax=docker/dockerfile:1
#
# docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) --tag gibbon .

# That of rust-toolchain.toml; the build fails where they differ.
ARG RUST=1.95.0

# The compiler runs on the builder's own architecture: emulated, the optimised build would take hours.
FROM --platform=$BUILDPLATFORM docker.io/library/rust:${RUST}-slim-trixie AS build
ARG RUST
ARG TARGETARCH
# The components that rust-toolchain.toml asks for are for developers. This keeps rustup from fetching them.
ENV RUSTUP_TOOLCHAIN=${RUST} CARGO_TERM_COLOR=never
WORKDIR /src

# aws-lc is C and assembler: for another architecture, its compiler and linker are needed too. (No cmake: its crate brings the list of files
# for these two targets.)
RUN <<'END'
set -eu
case $TARGETARCH in
  amd64) target=x86_64-unknown-linux-gnu tool=x86_64-linux-gnu-gcc packages="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" ;;
  arm64) target=aarch64-unknown-linux-gnu tool=aarch64-linux-gnu-gcc packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
  *) echo "no build for TARGETARCH=$TARGETARCH" >&2; exit 1 ;;
esac
echo "export CARGO_BUILD_TARGET=$target" >/env
if [ "$(dpkg --print-architecture)" != "$TARGETARCH" ]; then
  apt-get update
  apt-get install -y --no-install-recommends $packages
  rm -rf /var/lib/apt/lists/*
  rustup target add "$target"
  name=$(echo "$target" | tr - _)
  echo "export CC_$name=$tool CARGO_TARGET_$(echo "$name" | tr a-z A-Z)_LINKER=$tool" >>/env
fi
END

COPY . .
RUN grep -qx "channel = \"$RUST\"" rust-toolchain.toml || { echo "ARG RUST=$RUST is not the channel of rust-toolchain.toml" >&2; exit 1; }
# For the builder's own architecture, the program is built for what an instrumented build of it has done most. For others no such build can
# run here.
RUN --mount=type=cache,target=/usr/local/cargo/registry <<'END'
set -eu
. /env
if [ "$(dpkg --print-architecture)" = "$TARGETARCH" ]; then
  program=$(env -u CARGO_BUILD_TARGET benches/profile-guided)
else
  cargo build --release --locked --bin gibbon
  program=target/$CARGO_BUILD_TARGET/release/gibbon
fi
install -D -m 0755 "$program" /out/gibbon
install -D -m 0644 LICENSE /out/usr/share/doc/gibbon/LICENSE
END

# glibc, of the same Debian as the builder, and not a static musl binary: musl's allocator serialises the workers. The image also
# has the CA certificates, in /etc/ssl/certs, by which `https` members are verified; and no shell.
FROM gcr.io/distroless/cc-debian13:nonroot
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Gibbon" \
      org.opencontainers.image.description="An ingress controller that sends each request to the member that answers fastest" \
      org.opencontainers.image.url="https://gibbon.dev" \
      org.opencontainers.image.source="https://gibbon.dev" \
      org.opencontainers.image.documentation="https://gibbon.dev" \
      org.opencontainers.image.vendor="Gibbon" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian13:nonroot"
COPY --from=build /out/ /
# By number, so that runAsNonRoot can be checked.
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["/gibbon"]
CMD ["serve"]
