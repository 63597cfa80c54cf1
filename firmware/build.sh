#!/bin/sh
# Build build/default.uf2, build/pulse_count.uf2 and build/variance.uf2. The SDKs are where PICO_SDK_PATH and
# PICO_ICE_SDK_PATH say, or are linked here as pico-sdk and pico-ice-sdk.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
PICO_SDK_PATH=${PICO_SDK_PATH:-$here/pico-sdk}
PICO_ICE_SDK_PATH=${PICO_ICE_SDK_PATH:-$here/pico-ice-sdk}

for tool in cmake make arm-none-eabi-gcc; do
    command -v "$tool" >/dev/null || {
        echo "$tool is missing. Debian: apt-get install cmake make gcc-arm-none-eabi libnewlib-arm-none-eabi" >&2
        exit 1
    }
done
for folder in "$PICO_SDK_PATH/src" "$PICO_ICE_SDK_PATH/include"; do
    [ -d "$folder" ] || {
        echo "$folder is missing: set PICO_SDK_PATH and PICO_ICE_SDK_PATH, or link both SDKs into $here" >&2
        exit 1
    }
done

cmake -S "$here" -B "$here/build" -DPICO_SDK_PATH="$PICO_SDK_PATH" -DPICO_ICE_SDK_PATH="$PICO_ICE_SDK_PATH" \
    -DPICO_BOARD="${PICO_BOARD:-pico2_ice}" -DCMAKE_BUILD_TYPE=Release
cmake --build "$here/build" --parallel
ls -l "$here"/build/*.uf2
