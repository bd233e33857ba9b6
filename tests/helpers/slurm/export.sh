# What Slurm's --export=LIST leaves of the environment: ALL, or what LIST names, with SLURM_* and what the stubs need.
only_exported() {
  local names=",$1," name one
  [[ $names != *,ALL,* ]] || return 0
  for name in $(compgen -e); do
    [[ $name =~ ^((SLURM|STUB)_.*|PATH|PWD|HOME|RECORD|REAL_PYTHON|STAY)$ || $names == *,$name,* ]] || unset "$name"
  done
  for one in ${1//,/ }; do [[ $one != *=* ]] || export "${one?}"; done
}
