"""The CPU backend: verl's real trainer, vLLM and FSDP2 on a machine without a GPU, for tests and first steps.

``VERL_PLATFORM=cpu`` in the environment switches it on; :mod:`repo_verl.plugin` then calls :func:`activate` while verl
is imported, in every process of the run. Importing this package imports nothing else.
"""

__all__ = ["activate"]


def activate() -> None:
    """Makes verl run on the CPU in this process: environment defaults, the platform, and the patches.

    Call it after ``verl.plugin.platform`` has been imported and before verl asks for its platform, as an entry point of
    ``verl.plugins`` does. A second call changes nothing. Variables that the user has set are left as they are. In the
    process that runs verl's trainer script it also starts :mod:`repo_verl.cpu.fork_server`.

    Raises:
        RuntimeError: verl has already resolved another platform in this process, so it is too late.
    """
    from repo_verl.cpu import fork_server
    from repo_verl.cpu.environment import set_defaults
    from repo_verl.cpu.patches import apply_patches
    from repo_verl.cpu.platform import register_platform

    set_defaults()
    register_platform()
    apply_patches()
    fork_server.start_with_trainer()
