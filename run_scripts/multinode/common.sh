# Shared by the scripts for several nodes. Source it.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
[ "${VERL_PLATFORM:-}" != cpu ] || export CONFIG_NAME=${CONFIG_NAME:-repo_cpu}

# head_address: splits RAY_ADDRESS into head_host and head_port
head_address() {
  [[ ${RAY_ADDRESS:-} =~ ^([^:/]+):([0-9]+)$ ]] ||
    fail "RAY_ADDRESS=${RAY_ADDRESS:-} is not HOST:PORT: set it to the Ray head's, on every node"
  head_host=${BASH_REMATCH[1]} head_port=${BASH_REMATCH[2]}
}

# `ray start` requires a token if it finds one, a program that connects sends it only if told to: set it for both
if [ -n "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ] || [ -s "$HOME/.ray/auth_token" ]; then
  export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
fi
