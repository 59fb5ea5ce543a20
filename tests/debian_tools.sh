#!/usr/bin/env bash
# The programs that some slow tests compare with: installed where apt and root allow, else those
# tests skip and say so.
set -uo pipefail

declare -A package=(
  [chromium]=chromium        # opens the report
  [clang++]="clang libclang-rt-dev"  # libFuzzer over what is read of a model file
  [dciodvfy]=dicom3tools     # judges emitted DICOM
  [dcmdump]=dcmtk            # reads it, and receives it (storescp)
  [Orthanc]=orthanc          # receives it
)
missing=()
for command in "${!package[@]}"; do
  command -v "$command" >/dev/null || missing+=(${package[$command]}) # some are two packages
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed (needs root and apt), their tests will skip: ${missing[*]}"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null; then
  echo "apt-get could not install, their tests will skip: ${missing[*]}"
fi
