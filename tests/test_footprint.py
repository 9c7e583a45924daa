"""What a device holds of a step: shares, buckets and gathered weights, by plain numbers."""

import pytest

from forgetmenot.footprint import Groups, Parts, Spread, fits, fullest, halvings, on_device, seconds_of

ALONE = Parts(weights=800, gradients=400, optimizer=1600, activations=50, logits=7)
GROUPS = Groups(largest_block=100, outside_blocks=30, largest_block_trained=60)


def test_one_device_holds_all() -> None:
    assert on_device(ALONE, spread=Spread(devices=1, strategy="one", several=True), groups=GROUPS) == ALONE
    assert ALONE.total == 800 + 400 + 1600 + 50 + 7


def test_ddp_holds_gradients_once_more_in_its_buckets() -> None:
    parts = on_device(ALONE, spread=Spread(devices=4, strategy="ddp", several=True), groups=GROUPS)
    assert (parts.weights, parts.optimizer, parts.exchange) == (800, 1600, 400)


def test_fsdp_divides_and_gathers_two_blocks_and_what_is_outside_of_them() -> None:
    parts = on_device(ALONE, spread=Spread(devices=4, strategy="fsdp", several=False), groups=GROUPS)
    assert (parts.weights, parts.gradients, parts.optimizer) == (200, 100, 400)
    assert parts.exchange == 30 + 2 * 100 + 60
    assert (parts.activations, parts.logits) == (50, 7)


def test_fsdp_holds_whole_gradients_where_micro_batches_are_added_up() -> None:
    parts = on_device(ALONE, spread=Spread(devices=4, strategy="fsdp", several=True), groups=GROUPS)
    assert parts.gradients == 400
    assert parts.exchange == 30 + 2 * 100


def test_the_fullest_moment_is_that_of_the_device_and_not_of_the_whole() -> None:
    moments = {"optimizer": Parts(weights=1000, optimizer=1000), "head": Parts(weights=1000, activations=600)}
    alone, shared = Spread(devices=1, strategy="one", several=False), Spread(devices=8, strategy="fsdp", several=False)
    assert fullest(moments, spread=alone, groups=GROUPS).optimizer == 1000
    assert fullest(moments, spread=shared, groups=GROUPS).activations == 600


def test_a_tenth_of_a_device_is_left() -> None:
    assert fits(Parts(weights=90), memory=100)
    assert not fits(Parts(weights=91), memory=100)


def test_steps_take_their_work_over_the_rate_of_all_devices() -> None:
    assert seconds_of(1000, flops_per_step=6e12, flops_per_second=3e14, devices=2) == pytest.approx(10)


def test_micro_batches_are_halved_down_to_one_row() -> None:
    assert halvings(4096, least=700) == [2048, 1024, 700]
    assert halvings(512, least=512) == []
