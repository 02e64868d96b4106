package pitaya_test

func e2eUserCases() []e2eCase    { return nil }
func e2eLifeCases() []e2eCase    { return nil }
