from led_fast.models.toy import ToyGeneratorConfig as PointsGeneratorConfig, ToyCriticConfig as PointsCriticConfig, toy_critic, toy_generator, toy_balance, PRESETS  # noqa
def points_critic(p="default", dim=2): return toy_critic(p)
def points_generator(p="default", dim=2): return toy_generator(p)
def points_balance(dim=2): return toy_balance()
