# For the scripts of several nodes: what they share. Source it.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
[ "${VERL_PLATFORM:-}" != cpu ] || export CONFIG_NAME=${CONFIG_NAME:-repo_cpu}

# head_address: RAY_ADDRESS as head_host and head_port
head_address() {
  [[ ${RAY_ADDRESS:-} =~ ^([^:/]+):([0-9]+)$ ]] ||
    fail "RAY_ADDRESS=${RAY_ADDRESS:-} is not HOST:PORT: set it to the Ray head's, on every node"
  head_host=${BASH_REMATCH[1]} head_port=${BASH_REMATCH[2]}
}

# ray start asks for a token where it finds one, a program that connects only when told: tell both the same
if [ -n "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ] || [ -s "$HOME/.ray/auth_token" ]; then
  export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
fi
