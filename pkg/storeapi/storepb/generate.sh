#!/bin/sh
# Generates the Go code of the protocol definitions beside this script. It needs
# protoc with its well-known types (Debian: protobuf-compiler, libprotobuf-dev)
# and, in PATH, protoc-gen-go, protoc-gen-go-grpc and protoc-gen-go-vtproto.
set -eu
cd "$(dirname "$0")/.."
find storepb -name '*.pb.go' -delete
# shellcheck disable=SC2046 # no spaces in our file names
protoc -I. -I/usr/include \
	--go_out=. --go_opt=paths=source_relative \
	--go-grpc_out=. --go-grpc_opt=paths=source_relative \
	--go-vtproto_out=. --go-vtproto_opt=paths=source_relative,features=marshal+unmarshal+size \
	$(find storepb -name '*.proto' | LC_ALL=C sort)
