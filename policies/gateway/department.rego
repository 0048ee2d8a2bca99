# Departments: those that `allow.departments` lists, else the service's own. A service without any is open to all of
# them, as far as this rule goes.
package gateway.authz

in_department if input.identity.department in scope.allow.departments

blocks contains "department_mismatch" if {
	count(scope.allow.departments) > 0
	not in_department
	not scope.allow.public
}
