// Classes for Python, closed where pybind11 leaves them open. For bind*.cpp alone.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "bind/arrays.h"

namespace ckbd_python {

// pybind11's class_, but
// - an object without a value (of __new__ alone, or before a subclass has called __init__) is a TypeError wherever it
//   is given, where pybind11 would hand over memory as it came;
// - __init__ may let other threads and Python code in: if they call it too, the first that is through wins;
// - None is no self;
// - another class of these cannot be assigned to __class__: the value would be taken for another's.
template <class T, class Holder = std::unique_ptr<T>>
class Class : public py::class_<T, Holder> {
  using Base = py::class_<T, Holder>;

 public:
  Class(py::module_& m, const char* name) : Base(m, name, py::custom_type_setup(&pad)) {
    py::detail::get_type_info(reinterpret_cast<PyTypeObject*>(this->ptr()))->operator_new = &refuse_unmade;
  }

  // __init__ by a function that returns a Holder, or by the constructor that takes Args.
  template <class... Args, class... Extra>
  Class& init_by(Holder (*make)(Args...), const Extra&... extra) {
    Base::def(
        "__init__",
        [make](py::detail::value_and_holder& self, Args... args) {
          Holder made = make(std::forward<Args>(args)...);
          if (self.value_ptr() != nullptr) {
            throw py::type_error(name() + ".__init__: expected one call, got another while it ran");
          }
          self.value_ptr() = made.get();
          self.type->init_instance(self.inst, &made);
        },
        py::detail::is_new_style_constructor(), extra...);
    return *this;
  }
  template <class... Args, class... Extra>
  Class& init(const Extra&... extra) {
    return init_by(+[](Args... args) { return Holder(new T(std::forward<Args>(args)...)); }, extra...);
  }

  // A function of self, or a member.
  template <class R, class Self, class... Args, class... Extra>
  Class& def(const char* name, R (*function)(Self&, Args...), const Extra&... extra) {
    Base::def(name, function, extra...);
    return *this;
  }
  template <class R, class... Args, class... Extra>
  Class& def(const char* name, R (T::*member)(Args...), const Extra&... extra) {
    Base::def(name, of_self<R, T, Args...>(member), extra...);
    return *this;
  }
  template <class R, class... Args, class... Extra>
  Class& def(const char* name, R (T::*member)(Args...) const, const Extra&... extra) {
    Base::def(name, of_self<R, const T, Args...>(member), extra...);
    return *this;
  }
  template <class R>
  Class& def_property_readonly(const char* name, R (T::*member)() const) {
    Base::def_property_readonly(name, py::cpp_function(of_self<R, const T>(member)));
    return *this;
  }

 private:
  static std::string name() { return py::str(py::type::of<T>().attr("__name__")); }

  // pybind11 makes a pointer of self, which may be null.
  template <class R, class Self, class... Args, class Member>
  static auto of_self(Member member) {
    return [member](Self& self, Args... args) -> R { return (self.*member)(std::forward<Args>(args)...); };
  }

  // pybind11 asks for memory only where there is no value yet.
  static void* refuse_unmade(size_t) {
    throw py::type_error(name() + ": expected an object whose __init__ has been called, got one without a value");
  }

  // Python compares sizes, and takes for alike what adds nothing to a common base.
  static void pad(PyHeapTypeObject* type) { type->ht_type.tp_basicsize += sizeof(void*); }
};

// What may outlive the Python object. Unlike pybind11's own conversion this takes no None.
template <class T>
std::shared_ptr<T> shared(const std::string& name, const py::handle& object) {
  py::detail::make_caster<T*> caster;
  if (object.is_none() || !caster.load(object, false)) {
    throw py::type_error(name + ": expected " + std::string(py::str(py::type::of<T>().attr("__name__"))) + ", got " +
                         type_name(object));
  }
  return object.cast<std::shared_ptr<T>>();
}

}  // namespace ckbd_python
